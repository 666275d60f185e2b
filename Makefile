.PHONY: bench

# What the program costs, against its targets and the figures that were kept last; for example ARGS="--quick --keep".
bench:
	python3 tasks.py bench $(ARGS)

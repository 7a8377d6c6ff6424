import sys

rows, share, first, second = sys.argv[1:]
with open(rows) as source:
    head, *lines = source.readlines()
cut = int(len(lines) * float(share))
for path, part in ((first, lines[:cut]), (second, lines[cut:])):
    with open(path, "w") as target:
        target.writelines([head, *part])

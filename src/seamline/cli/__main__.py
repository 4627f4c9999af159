"""``python -m seamline.cli``: the same as ``seamline``, for where no script is on the path."""

from seamline.cli import main

main()

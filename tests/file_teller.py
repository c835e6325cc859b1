"""A program for images of tests, which does with files what its words say: ``r:PATH`` reads, ``w:PATH`` writes, ``wait`` waits."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from unikeel.kernel.process import find_program

_SOURCE: Final = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char text[4096];
    for (int i = 1; i < argc; i++) {
        const char *path = argv[i] + 2;
        if (!strcmp(argv[i], "wait")) {
            puts("waiting");
            fflush(stdout);
            for (;;)
                pause();
        }
        FILE *file = fopen(path, argv[i][0] == 'r' ? "r" : "w");
        if (!file) {
            printf("%s: %s\n", argv[i], strerror(errno));
            continue;
        }
        size_t size = argv[i][0] == 'r' ? fread(text, 1, sizeof text - 1, file) : (size_t)fprintf(file, "by the guest");
        text[argv[i][0] == 'r' ? size : 0] = 0;
        printf("%s: %s\n", argv[i], fclose(file) ? strerror(errno) : text);
    }
    fflush(stdout);
    return 0;
}
"""


def compile_teller(path: str) -> str:
    """The program, at this path."""
    with open(f"{path}.c", "w", encoding="utf-8") as file:
        file.write(_SOURCE)
    argv = [find_program("gcc", os.environ["PATH"]), "-static", "-O1", "-o", path, f"{path}.c"]
    subprocess.run(argv, check=True, timeout=300)
    return path

# SPDX-License-Identifier: GPL-2.0
"""Pictures by gnuplot, each as SVG and as PNG."""

import shutil
import subprocess
import tempfile

COLOURS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#bbbbbb',
           '#000000')
TERMINALS = (('svg', 'svg size %d,%d font "DejaVu Sans,12" background "#ffffff"'),
             ('png', 'pngcairo size %d,%d font "DejaVu Sans,10"'))


class Missing(Exception):
    """gnuplot is not there, or does not do it."""


def draw(script, out, size):
    """Run a script of gnuplot: OUT.svg and OUT.png, of so many pixels."""
    if not shutil.which('gnuplot'):
        raise Missing('gnuplot is missing (package gnuplot-nox)')
    for kind, terminal in TERMINALS:
        with tempfile.NamedTemporaryFile(suffix='.' + kind) as file:
            head = 'set terminal %s\nset output "%s"\n' % (terminal % size, file.name)
            run = subprocess.run(['gnuplot'], input=head + script, text=True, capture_output=True,
                                 check=False)
            if run.returncode:
                raise Missing('gnuplot: ' + run.stderr.strip())
            shutil.copyfile(file.name, '%s.%s' % (out, kind))

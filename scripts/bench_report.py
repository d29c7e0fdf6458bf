#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Tables and pictures of what scripts/bench has measured, out of its results.json.

    bench_report.py RESULTS                     the table
    bench_report.py RESULTS --pictures DIR      NAME.svg and NAME.png for each group of rows
    bench_report.py RESULTS --readme README     the table between its markers there

Needs no host. Pictures need gnuplot (package gnuplot-nox).
"""

import argparse
import json
import os
import re
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import picture  # noqa: E402 pylint: disable=wrong-import-position

BEGIN, END = '<!-- bench:begin -->', '<!-- bench:end -->'


class Summary:
    """Median and spread of one side of one row."""

    def __init__(self, side, samples):
        self.side = side
        self.number = len(samples)
        self.median = statistics.median(samples) if samples else None
        self.least = min(samples, default=None)
        self.most = max(samples, default=None)


class Row:
    """One row: this project's side comes first, its peers follow."""

    def __init__(self, row):
        self.name, self.title, self.unit = row['row'], row['title'], row['unit']
        self.group = row['group']
        self.notes = row['notes']
        self.failures = row['failures']
        self.sides = [Summary(side['side'], side['samples']) for side in row['sides']]
        self.ours, self.peers = self.sides[0], self.sides[1:]

    def ratio(self, peer):
        if self.ours.median is None or not peer.median:
            return None
        return self.ours.median / peer.median


def number(value):
    """Three digits that mean something; more where they are before the point."""
    if value is None:
        return '-'
    return '%d' % round(value) if abs(value) >= 100 else '%.3g' % value


def ratio_text(ratio):
    """Near 1 the third digit counts."""
    if ratio is None:
        return ''
    return '%.3f' % ratio if 0.5 < ratio < 2 else '%.2g' % ratio


def rows_of(results):
    return [Row(row) for row in results['rows']]


def environment_lines(results):
    env = results['environment']
    yield 'KVM: %s. CPU: %s, %d of them' % (env['kvm'], env['cpu'], env['cpus'])
    yield 'host kernel %s, guest kernel %s, %s' % (env['host_kernel'], env['guest_kernel'],
                                                   env['qemu'])
    yield '%s, %d minutes%s' % ('run with few samples' if results['short'] else 'run',
                                round(results['seconds'] / 60),
                                ', of revision ' + env['revision'] if env['revision'] else '')
    if results.get('left_out'):
        yield 'not measured: ' + ', '.join(results['left_out'])


def table(results):
    """For a terminal."""
    lines = ['%-26s %-22s %3s %9s %9s %9s %-4s %s' % (
        'case', 'side', 'n', 'median', 'min', 'max', '', 'ours/peer')]
    for row in rows_of(results):
        for side in row.sides:
            ours = side is row.ours
            lines.append('%-26s %-22s %3d %9s %9s %9s %-4s %s' % (
                row.name if ours else '', side.side, side.number, number(side.median),
                number(side.least), number(side.most), row.unit,
                '' if ours else ratio_text(row.ratio(side))))
        lines += ['  note: ' + note for note in row.notes]
        lines += ['  FAILED: ' + failure for failure in row.failures]
    return lines + [''] + list(environment_lines(results))


def markdown(results):
    """For README."""
    lines = ['| | this | instead | ratio |', '|---|---|---|---|']
    for row in rows_of(results):
        def cell(side, unit=row.unit):
            if side.median is None:
                return 'no sample'
            return '%s %s (%s to %s)' % (number(side.median), unit, number(side.least),
                                         number(side.most))
        first = True
        for peer in row.peers:
            lines.append('| %s | %s | %s: %s | %s |' % (
                row.title if first else '', cell(row.ours) if first else '', peer.side,
                cell(peer), ratio_text(row.ratio(peer))))
            first = False
    most = max((side.number for row in rows_of(results) for side in row.sides), default=0)
    lines += ['', 'Medians (least to most) of up to %d samples, taken in turn; ratio: this to what is '
              'there instead, less than 1 is faster. %s.' % (
                  most, '; '.join(environment_lines(results)))]
    said = ['- %s: %s%s' % (row.title, 'FAILED: ' * failed, text) for row in rows_of(results)
            for failed, texts in enumerate((row.notes, row.failures)) for text in texts]
    return lines + [''] + said


def fill_readme(path, results):
    with open(path, encoding='utf-8') as file:
        text = file.read()
    pattern = re.compile('%s.*?%s' % (re.escape(BEGIN), re.escape(END)), re.S)
    if len(pattern.findall(text)) != 1:
        sys.exit('bench_report: %s: not once %s ... %s' % (path, BEGIN, END))
    body = '\n'.join(markdown(results)).strip()
    with open(path, 'w', encoding='utf-8') as file:
        file.write(pattern.sub(lambda _: '%s\n%s\n%s' % (BEGIN, body, END), text))


def draw_group(rows, out):
    """Bars of the medians with the spread, a cluster per row."""
    sides = list(dict.fromkeys(side.side for row in rows for side in row.sides))
    width = 0.8 / max(len(row.sides) for row in rows)
    blocks, curves = [], []
    for i, name in enumerate(sides):
        lines = ['%g %g %g %g' % (at + (k - (len(row.sides) - 1) / 2) * width, side.median,
                                  side.least, side.most)
                 for at, row in enumerate(rows) for k, side in enumerate(row.sides)
                 if side.side == name and side.median is not None]
        if not lines:
            continue
        block = '$side%d' % i
        blocks.append('%s << EOD\n%s\nEOD' % (block, '\n'.join(lines)))
        colour = picture.COLOURS[i % len(picture.COLOURS)]
        curves.append('%s using 1:2:(%g) with boxes fs solid 1.0 noborder lc rgb "%s" title "%s"' % (
            block, 0.9 * width, colour, name))
        curves.append('%s using 1:2:3:4 with yerrorbars lc rgb "#333333" ps 0 notitle' % block)
    tics = ', '.join('"%s" %d' % (row.name.replace('_', '\\_'), at) for at, row in enumerate(rows))
    script = blocks + [
        'set key outside top center horizontal', 'set grid ytics lc rgb "#dddddd"',
        'set xtics (%s) rotate by -20 nomirror' % tics, 'set xrange [-0.6:%g]' % (len(rows) - 0.4),
        'set rmargin 10', 'set ylabel "%s"' % rows[0].unit]
    highest = max(side.most for row in rows for side in row.sides if side.most is not None)
    lowest = min(side.least for row in rows for side in row.sides if side.least is not None)
    if lowest > 0 and highest > 20 * lowest:
        script += ['set logscale y', 'set yrange [%g:%g]' % (lowest / 2, highest * 2)]
    else:
        script.append('set yrange [0:*]')
    picture.draw('\n'.join(script + ['plot ' + ', \\\n  '.join(curves)]), out, (1000, 520))


def draw(results, folder):
    """Return the names of the pictures."""
    groups = {}
    for row in rows_of(results):
        if any(side.median is not None for side in row.sides):
            groups.setdefault(row.group, []).append(row)
    for group, rows in groups.items():
        draw_group(rows, '%s/%s' % (folder, group))
    return list(groups)


def main():
    parser = argparse.ArgumentParser(prog='scripts/bench_report.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results')
    parser.add_argument('--pictures', metavar='DIR')
    parser.add_argument('--readme', metavar='FILE')
    args = parser.parse_args()
    with open(args.results, encoding='utf-8') as file:
        results = json.load(file)
    if args.pictures:
        for name in draw(results, args.pictures):
            print('%s/%s.svg and .png' % (args.pictures, name))
    if args.readme:
        fill_readme(args.readme, results)
    if not args.pictures and not args.readme:
        print('\n'.join(table(results)))


if __name__ == '__main__':
    main()

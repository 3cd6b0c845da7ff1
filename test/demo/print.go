package main

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	columns = 100
	indent  = "    "
	clock   = "15:04:05"
	millis  = "15:04:05.000"
)

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

func (d *demo) question(text string) { d.printf("\n── %s\n\n", text) }

// kubectl runs kubectl, prints the command and eight lines of its output, and returns its standard
// output.
func (d *demo) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := d.cluster.KubectlCommand(ctx, args...)
	var stdout, both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &both
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("kubectl %q: %w: %s", args, err, bytes.TrimSpace(both.Bytes()))
	}
	both.Write(stdout.Bytes())
	d.printf("  $ kubectl %s\n", strings.Join(args, " "))
	const most = 8
	n := 0
	for text := range strings.Lines(both.String()) {
		if n++; n <= most {
			d.line("%s", strings.TrimSpace(text))
		}
	}
	d.more(n - most)
	return stdout.Bytes(), nil
}

// printQuery prints a query of the archive.
func (d *demo) printQuery(q question) { d.printf("\n  %s\n", d.archive.command(q)) }

// logQL prints a query for Loki only.
func (d *demo) logQL(query string) { d.printQuery(question{logQL: query}) }

// line prints an indented line, truncated to the width of a terminal.
func (d *demo) line(format string, args ...any) {
	d.printf("%s\n", fit(indent+fmt.Sprintf(format, args...), columns))
}

// entries shows the first of them, in two lines each.
func (d *demo) entries(entries []entry, most int) {
	for _, e := range entries[:min(most, len(entries))] {
		d.line("%s  %s/%s  %s", e.at.Format(millis), e.namespace, e.name, e.reason)
		d.line("              %s", e.message)
	}
	d.more(len(entries) - most)
}

func (d *demo) more(n int) {
	if n > 0 {
		d.line("… and %d more", n)
	}
}

// fit truncates a line.
func fit(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// ofOutage matches the two namespaces of the outage; other namespaces have Events as well.
var (
	ofOutage     = regexp.MustCompile(`^(prod|dedicated)-metrics\b`)
	ofPreemption = regexp.MustCompile(`\bPreempted\b`)
)

// countLines counts the lines of a table that match.
func countLines(table []byte, match *regexp.Regexp) (n int) {
	for line := range bytes.Lines(table) {
		if match.Match(line) {
			n++
		}
	}
	return n
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }

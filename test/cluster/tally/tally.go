// Package tally counts the tests that ran against programs found on the machine,
// and those that were skipped because a program was missing, over all packages
// of a run of go test.
package tally

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Variable names the environment variable with the path of the file to which
// tests append. Without it, they count nothing.
const Variable = "HINDSIGHT_TEST_TALLY"

// Result is the outcome of a test that needs a program.
type Result string

// The results.
const (
	Ran     Result = "ran"     // against the program
	Skipped Result = "skipped" // the program is missing
	Partly  Result = "partly"  // the program is missing; the rest of the test ran
	Failed  Result = "failed"  // the program is missing though required, or does not run
)

// Entry is one test that needs a program.
type Entry struct {
	Program string
	Version string // empty if it is missing
	Package string // directory
	Test    string
	Result  Result
}

// Append adds an entry to the file. Processes may do so at the same time.
func Append(e Entry) error {
	path := os.Getenv(Variable)
	if path == "" {
		return nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("count a test: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("count a test: %w", err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		f.Close()
		return fmt.Errorf("count a test: %w", err)
	}
	return f.Close()
}

// Read returns the entries of a file.
func Read(file io.Reader) (entries []Entry, err error) {
	for dec := json.NewDecoder(file); ; {
		var e Entry
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return entries, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the counted tests: %w", err)
		}
		entries = append(entries, e)
	}
}

// Summary returns one line about the programs that tests need. A test counts once for each
// program.
func Summary(entries []Entry) string {
	type test struct{ pkg, name string }
	results := map[string]map[test]Result{}
	found := map[string][]string{}
	var programs []string
	for _, e := range entries {
		if results[e.Program] == nil {
			results[e.Program] = map[test]Result{}
			programs = append(programs, e.Program)
		}
		results[e.Program][test{e.Package, e.Test}] = e.Result
		if e.Version != "" && !slices.Contains(found[e.Program], e.Version) {
			found[e.Program] = append(found[e.Program], e.Version)
		}
	}
	slices.Sort(programs)
	var parts []string
	for _, program := range programs {
		count := map[Result]int{}
		for _, result := range results[program] {
			count[result]++
		}
		part := fmt.Sprintf("%d ran against %s", count[Ran], program)
		if versions := found[program]; len(versions) > 0 {
			part += " " + strings.Join(versions, " and ")
		}
		part += fmt.Sprintf(", %d skipped without it", count[Skipped])
		if count[Partly] > 0 {
			part += fmt.Sprintf(", %d ran without that part", count[Partly])
		}
		if count[Failed] > 0 {
			part += fmt.Sprintf(", %d failed for lack of it", count[Failed])
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "tests: none needed a program that is not built here"
	}
	return "tests: " + strings.Join(parts, "; ")
}

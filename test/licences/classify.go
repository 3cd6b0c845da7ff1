package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/licensecheck"
)

// allowedInProgram are the licences (SPDX identifiers) of modules that the binary may link.
var allowedInProgram = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}

// forbidden matches licences that no dependency of the repository may have, even if only a tool or
// a test uses it. The Commons Clause is an addition to another licence that forbids selling.
var forbidden = regexp.MustCompile(`AGPL|SSPL|BUSL|CommonsClause|Commons-Clause`)

// scanner adds the Business Source License, which licensecheck does not know. One sentence of
// its terms is enough to recognise it.
var scanner = sync.OnceValues(func() (*licensecheck.Scanner, error) {
	return licensecheck.NewScanner(append(licensecheck.BuiltinLicenses(), licensecheck.License{
		ID: "BUSL-1.1",
		LRE: "The Licensor hereby grants you the right to copy, modify, create derivative works, redistribute, " +
			"and make non-production use of the Licensed Work.",
	}))
})

// text is a file with licence texts or notices.
type text struct {
	path    string
	content string
	ids     []string // SPDX identifiers of the licences that were recognised, sorted
	percent float64  // of the words that belong to them
}

func readText(path string) (text, error) {
	s, err := scanner()
	if err != nil {
		return text{}, fmt.Errorf("compile the licence patterns: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return text{}, err
	}
	b = bytes.TrimSpace(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
	coverage := s.Scan(b)
	t := text{path: path, content: string(b), percent: coverage.Percent}
	for _, m := range coverage.Match {
		t.ids = append(t.ids, m.ID)
	}
	slices.Sort(t.ids)
	t.ids = slices.Compact(t.ids)
	return t, nil
}

var (
	licenceName = regexp.MustCompile(`(?i)(licen[sc]e|copying)`)
	noticeName  = regexp.MustCompile(`(?i)^notice`)
	readmeName  = regexp.MustCompile(`(?i)^readme`)
	// This excludes source code about licences, such as license_test.go.
	textExtension = regexp.MustCompile(`(?i)^(|\.(txt|md|markdown|rst|apache|mit|bsd|libyaml|docs|code|mpl-2\.0|[0-9]+))$`)
)

// readTexts reads the files of a folder with matching names.
func readTexts(dir string, name *regexp.Regexp) (all []text, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeType != 0 || !name.MatchString(e.Name()) || !textExtension.MatchString(filepath.Ext(e.Name())) {
			continue
		}
		t, err := readText(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// readLicences reads a module's licences. A module without such a file may have the text in its
// README.
func readLicences(dir string) ([]text, error) {
	licences, err := readTexts(dir, licenceName)
	if err == nil && len(licences) == 0 {
		licences, err = readTexts(dir, readmeName)
		licences = slices.DeleteFunc(licences, func(t text) bool { return len(t.ids) == 0 })
	}
	return licences, err
}

// checkAny returns an error if a module has no licence that is recognized, or a forbidden one.
func checkAny(licences []text) error {
	var recognised int
	for _, t := range licences {
		for _, id := range t.ids {
			if forbidden.MatchString(id) {
				return fmt.Errorf("%s is under %s", t.path, id)
			}
		}
		recognised += len(t.ids)
	}
	switch {
	case len(licences) == 0:
		return fmt.Errorf("no licence")
	case recognised == 0:
		return fmt.Errorf("no licence is recognised in %s", licences[0].path)
	}
	return nil
}

// checkLinked returns an error unless all licences of a module are among allowedInProgram, and make
// up most of the text.
func checkLinked(licences []text) error {
	if err := checkAny(licences); err != nil {
		return err
	}
	for _, t := range licences {
		for _, id := range t.ids {
			if !slices.Contains(allowedInProgram, id) {
				return fmt.Errorf("%s is under %s; the program may link only %s", t.path, id, strings.Join(allowedInProgram, ", "))
			}
		}
		if t.percent < 75 {
			return fmt.Errorf("only %.0f%% of %s are recognised, as %s: read it", t.percent, t.path, strings.Join(t.ids, ", "))
		}
	}
	return nil
}

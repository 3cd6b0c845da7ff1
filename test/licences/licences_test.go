package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// NOTICE is current, and all linked modules have an allowed licence.
func TestNotice(t *testing.T) {
	want, err := notice(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("NOTICE does not have the licences of the modules that the program links; run\n\tmake notice")
	}
	for _, part := range []string{"the Go standard library\n", "k8s.io/client-go\n", "k8s.io/apimachinery/third_party/forked/golang\n"} {
		if !strings.Contains(want, "\n"+part) {
			t.Errorf("NOTICE names no %q", part)
		}
	}
}

// No npm package of a lock file is under a forbidden licence.
func TestLockFiles(t *testing.T) {
	paths, err := findFiles(root, "package-lock.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no lock files: %v", err)
	}
	for _, path := range paths {
		n, problems := checkLockFile(path)
		for _, err := range problems {
			t.Error(err)
		}
		t.Logf("%s: %d packages", path, n)
	}
}

func TestLockFileWithBadLicences(t *testing.T) {
	path := filepath.Join(t.TempDir(), "package-lock.json")
	write(t, path, `{"packages": {
		"": {"license": "Apache-2.0"},
		"node_modules/good": {"license": "(MIT OR GPL-3.0)"},
		"node_modules/agpl": {"license": "AGPL-3.0-only"},
		"node_modules/none": {},
		"node_modules/owned": {"license": "UNLICENSED"}}}`)
	n, problems := checkLockFile(path)
	if n != 5 || len(problems) != 3 {
		t.Errorf("%d packages, %d problems, want 5 and 3: %v", n, len(problems), problems)
	}
}

func TestLicencesOfModules(t *testing.T) {
	apache, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	const (
		mit = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:\n\nThe above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.\n\nTHE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.\n"
		gpl = "This program is free software: you can redistribute it and/or modify it under the terms of the GNU %sGeneral Public License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.\n\nThis program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU %sGeneral Public License for more details.\n"
		// It contains the sentence that the scanner recognizes.
		business = "Business Source License 1.1\n\nChange License: MPL 2.0, https://www.mozilla.org/en-US/MPL/2.0/\n\nThe Licensor hereby grants you the right to copy, modify, create derivative works, redistribute, and make non-production use of the Licensed Work.\n"
	)
	for name, c := range map[string]struct {
		files       map[string]string
		any, linked string // parts of the errors; empty: no error
	}{
		"Apache":                    {files: map[string]string{"LICENSE": string(apache)}},
		"MIT with Windows newlines": {files: map[string]string{"License.txt": strings.ReplaceAll(mit, "\n", "\r\n")}},
		"in the README":             {files: map[string]string{"README.md": mit}},
		"a second file":             {files: map[string]string{"LICENSE": mit, "LICENSE.apache": string(apache)}},
		"nothing":                   {files: map[string]string{"main.go": "package main"}, any: "no licence", linked: "no licence"},
		"a README without a text":   {files: map[string]string{"README.md": "A tool."}, any: "no licence", linked: "no licence"},
		"own words":                 {files: map[string]string{"LICENSE": "All rights reserved. Ask us."}, any: "no licence is recognised", linked: "no licence is recognised"},
		"source about licences":     {files: map[string]string{"license.go": mit}, any: "no licence", linked: "no licence"},
		"more than it seems":        {files: map[string]string{"LICENSE": mit + strings.Repeat("You must also send us a postcard from your town each year.\n", 20)}, linked: "are recognised"},
		"GPL":                       {files: map[string]string{"COPYING": strings.ReplaceAll(gpl, "%s", "")}, linked: "is under GPL-3.0"},
		"AGPL":                      {files: map[string]string{"LICENSE": strings.ReplaceAll(gpl, "%s", "Affero ")}, any: "is under AGPL-3.0", linked: "is under AGPL-3.0"},
		"AGPL beside another":       {files: map[string]string{"LICENSE": mit, "LICENSE_AGPL": strings.ReplaceAll(gpl, "%s", "Affero ")}, any: "is under AGPL-3.0", linked: "is under AGPL-3.0"},
		"BUSL":                      {files: map[string]string{"LICENSE.txt": business}, any: "is under BUSL-1.1", linked: "is under BUSL-1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range c.files {
				write(t, filepath.Join(dir, name), content)
			}
			licences, err := readLicences(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, check := range []struct {
				name string
				err  error
				want string
			}{{"any", checkAny(licences), c.any}, {"linked", checkLinked(licences), c.linked}} {
				if (check.err == nil) != (check.want == "") || check.err != nil && !strings.Contains(check.err.Error(), check.want) {
					t.Errorf("%s: %v, want %q", check.name, check.err, check.want)
				}
			}
		})
	}
}

// A module that requires no other has no go.sum.
func TestBuildListOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "go.mod")
	write(t, path, "module example.com/alone\n\ngo 1.24\n")
	if n, problems := checkBuildList(path, map[string]bool{}); n != 0 || len(problems) > 0 {
		t.Errorf("%d modules, %v, want none", n, problems)
	}
}

// A module that cannot be downloaded is a problem, since its licence is unknown.
func TestBuildListWithAMissingModule(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	path := filepath.Join(t.TempDir(), "go.mod")
	write(t, path, "module example.com/needy\n\ngo 1.24\n\nrequire example.com/nowhere v1.2.3\n")
	if _, problems := checkBuildList(path, map[string]bool{}); len(problems) == 0 {
		t.Error("no problem is found")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is a module in a build list.
type module struct {
	Path, Version string
	Dir           string // its source
	Error         string
}

// buildList returns the build list of a go.mod, as in `go list -m all`, with the source of each
// module. It downloads modules of the list that no build needs.
func buildList(goMod string) ([]module, error) {
	// In a copy, because the command adds the sums of such modules to go.sum.
	dir, err := os.MkdirTemp("", "licences-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(goMod), name))
		if name == "go.sum" && errors.Is(err, fs.ErrNotExist) {
			continue // a module that requires no other
		}
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	out, err := goCommand(dir, []string{"GOWORK=off"}, "mod", "download", "-json", "all")
	if err != nil && out == "" {
		return nil, fmt.Errorf("%s: %w", goMod, err)
	}
	// The command describes modules with errors too.
	var all []module
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var m module
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: go mod download: %w", goMod, err)
		}
		all = append(all, m)
	}
}

// checkBuildList returns an error for each module of a build list that has no licence or a forbidden
// one. It skips the modules in checked, and adds the others to it.
func checkBuildList(goMod string, checked map[string]bool) (n int, problems []error) {
	all, err := buildList(goMod)
	if err != nil {
		return 0, []error{err}
	}
	for _, m := range all {
		if m.Error != "" {
			problems = append(problems, fmt.Errorf("%s: %s", goMod, m.Error))
			continue
		}
		if checked[m.Dir] {
			continue
		}
		checked[m.Dir] = true
		licences, err := readLicences(m.Dir)
		if err == nil {
			err = checkAny(licences)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: module %s %s: %w", goMod, m.Path, m.Version, err))
		}
	}
	return len(all), problems
}

// checkLockFile returns an error for each npm package of a lock file whose licence is missing
// or forbidden. The file has the licence that each package declares.
func checkLockFile(path string) (n int, problems []error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, []error{err}
	}
	var lock struct {
		Packages map[string]struct{ License any }
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		return 0, []error{fmt.Errorf("%s: %w", path, err)}
	}
	for name, p := range lock.Packages {
		switch id, _ := p.License.(string); {
		case id == "" || strings.Contains(id, "UNLICENSED") || strings.Contains(id, "SEE LICENSE"):
			problems = append(problems, fmt.Errorf("%s: package %s: no licence that has a name, but %v", path, name, p.License))
		case forbidden.MatchString(id):
			problems = append(problems, fmt.Errorf("%s: package %s is under %s", path, name, id))
		}
	}
	return len(lock.Packages), problems
}

// findFiles returns the paths of files with the name in the repository.
func findFiles(root, name string) (paths []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case d.Name() == name:
			paths = append(paths, path)
		}
		return nil
	})
	return paths, err
}

// goCommand runs the go command in a folder and returns its output, with an error if it fails.
func goCommand(dir string, env []string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hindsight-events/hindsight/test/program"
)

func buildHindsight(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "hindsight")
	return binary, program.Build(ctx, binary, "cmd/hindsight")
}

// startHindsight starts hindsight and waits until it is ready.
func startHindsight(ctx context.Context, binary, dir, kubeconfig, sink string) (*program.Program, error) {
	p, err := program.Start(program.Options{
		Binary: binary, Dir: dir, Args: []string{"run", "--kubeconfig", kubeconfig},
		Config: fmt.Sprintf("cluster: demo\njournal: {dir: %q}\nsinks:\n  - name: archive\n    %s\n", filepath.Join(dir, "journal"), sink),
	})
	if err != nil {
		return nil, err
	}
	if err := p.WaitUntilReady(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

func stopHindsight(ctx context.Context, p *program.Program) error {
	code, err := p.Stop(ctx)
	if err == nil && code != 0 {
		err = errors.New("hindsight ended with exit code " + fmt.Sprint(code) + "; its log ends with\n" + p.LogTail())
	}
	return err
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// container holds the resources that the manifests grant Hindsight.
type container struct {
	memory     int64 // limits.memory, in bytes
	goMemLimit string
}

// readContainer reads deploy/kustomize.
func readContainer(ctx context.Context) (container, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/hindsight-events/hindsight").Output()
	if err != nil {
		return container{}, fmt.Errorf("find the manifests: %w", err)
	}
	path := filepath.Join(strings.TrimSpace(string(root)), "deploy", "kustomize", "base", "deployment.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return container{}, err
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(data, &d); err != nil {
		return container{}, fmt.Errorf("%s: %w", path, err)
	}
	var c container
	for _, one := range d.Spec.Template.Spec.Containers {
		c.memory = one.Resources.Limits.Memory().Value()
		for _, v := range one.Env {
			if v.Name == "GOMEMLIMIT" {
				c.goMemLimit = v.Value
			}
		}
	}
	if c.memory == 0 || c.goMemLimit == "" {
		return c, fmt.Errorf("%s: no limits.memory or no GOMEMLIMIT", path)
	}
	return c, nil
}

// holds returns an error if something with such a peak of resident memory would
// have been killed. That is stricter than the kernel is: it can take back pages
// of files, which are resident too.
func (c container) holds(peakBytes int64) error {
	if peakBytes > c.memory {
		return fmt.Errorf("%.1f MB resident, and the manifests allow %.1f MB", float64(peakBytes)/1e6, float64(c.memory)/1e6)
	}
	return nil
}

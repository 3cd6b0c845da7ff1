//go:build e2e

package deploy

import (
	"os"
	"os/exec"
	"testing"
)

// The image is built, holds what it should and nothing else, and starts.
func TestImage(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil || os.Geteuid() != 0 {
		t.Skip("images are built by buildah, as root")
	}
	out, err := exec.CommandContext(t.Context(), "./image.sh").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

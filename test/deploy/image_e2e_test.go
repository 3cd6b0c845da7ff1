//go:build e2e

package deploy

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// The image builds, has the expected files only, and starts.
func TestImage(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "buildah", "--version").Output()
	if err != nil || os.Geteuid() != 0 {
		cluster.SkipWithout(t, "buildah", "images are built by buildah, as root")
	}
	_, after, _ := strings.Cut(string(version), "version ") // buildah version 1.39.3 (image-spec …)
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	cluster.CountRan(t, "buildah", number)
	out, err := exec.CommandContext(t.Context(), "./image.sh").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

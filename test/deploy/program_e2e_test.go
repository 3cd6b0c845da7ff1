//go:build e2e

package deploy

import (
	"os"
	"testing"

	"github.com/hindsight-events/hindsight/test/program"
)

func TestMain(m *testing.M) {
	os.Exit(program.Main(m, "-race"))
}

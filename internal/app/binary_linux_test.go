package app

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestUnmapBinary(t *testing.T) {
	resident := func() (kib int) {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			_, _ = fmt.Sscanf(line, "RssFile: %d kB", &kib)
		}
		return kib
	}
	before := resident()
	if err := unmapBinary(); err != nil {
		t.Fatal(err)
	}
	// The program still runs, with fewer pages.
	if after := resident(); after >= before-1024 {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
	}
}

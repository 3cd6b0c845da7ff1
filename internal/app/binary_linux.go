package app

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// unmapBinary unmaps the pages of the program's code and constants. Packages that initialise touch
// most of them, since the kernel maps 64 KiB around each page that is used. It maps those that are
// used again from its cache, and may reclaim the others. Memory that was changed stays.
func unmapBinary() error {
	executable, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer maps.Close()
	var start, end uintptr // of the current mapping; 0: not to be unmapped
	for in := bufio.NewScanner(maps); in.Scan(); {
		var from, to uintptr
		var permissions, field string
		if n, _ := fmt.Sscanf(in.Text(), "%x-%x %s", &from, &to, &permissions); n == 3 {
			start, end = 0, 0
			if !strings.Contains(permissions, "w") && strings.HasSuffix(in.Text(), " "+executable) {
				start, end = from, to
			}
			continue
		}
		// A mapping may have changed pages, of relocations or breakpoints, which would be lost.
		if n, _ := fmt.Sscanf(in.Text(), "Anonymous: %s", &field); n == 1 && field == "0" && start > 0 {
			if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, start, end-start, syscall.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("unmap the pages of the program: %w", errno)
			}
		}
	}
	return nil
}

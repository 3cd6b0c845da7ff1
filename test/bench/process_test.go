package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hindsight-events/hindsight/test/wait"
)

// testProgram is the environment variable that makes the test binary act as a program to be
// measured.
const testProgram = "BENCH_TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(testProgram) {
	case "":
		os.Exit(m.Run())
	case "uses": // so many bytes
		bytes, err := strconv.Atoi(os.Args[1])
		if err == nil {
			err = useMemory(bytes)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "waits": // for a signal
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt)
		fmt.Println("ready")
		<-signals
	case "fails":
		fmt.Println("cannot continue")
		os.Exit(3)
	case "liar":
		os.Exit(lie())
	}
}

// lie answers as a Hindsight would that has sent everything.
func lie() int {
	address := os.Args[slices.Index(os.Args, "--listen")+1]
	err := http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE %s counter\n%[1]s 1e9\n", sent)
	}))
	fmt.Println(err)
	return 1
}

// useMemory makes so many bytes resident for a moment. They are not Go's, of
// which the race detector would keep a shadow.
func useMemory(bytes int) error {
	room, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := 0; i < len(room); i += 1 << 10 {
		room[i] = 1
	}
	return syscall.Munmap(room)
}

func startSelf(t *testing.T, which string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(self, filepath.Join(t.TempDir(), "log"), []string{testProgram + "=" + which}, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestUsage(t *testing.T) {
	// A peak below the one of the tests themselves cannot be measured.
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		t.Fatal(err)
	}
	bytes := peakOf(&own) + 64<<20
	used, err := startSelf(t, "uses", fmt.Sprint(bytes)).wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if used.cpu <= 0 {
		t.Errorf("%d MiB were filled in %v of CPU", bytes>>20, used.cpu)
	}
	if over := used.peakBytes - bytes; over < 0 || over > 256<<20 { // the rest of the process
		t.Errorf("a process with %d MiB has a peak of %d MiB", bytes>>20, used.peakBytes>>20)
	}
}

func TestUsageIsNotOfTheBenchmarkItself(t *testing.T) {
	if err := useMemory(256 << 20); err != nil {
		t.Fatal(err)
	}
	used, err := startSelf(t, "uses", "4096").wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if used.peakBytes != 0 {
		t.Errorf("a small process has a peak of %d MiB", used.peakBytes>>20)
	}

	// Linux knows better of one that still runs.
	p := startSelf(t, "waits")
	wait.Until(t, "the process handles signals", func() bool { log, _ := os.ReadFile(p.log); return len(log) > 0 })
	if used, err = p.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if used.peakBytes > 256<<20 || used.peakBytes == 0 && runtime.GOOS == "linux" {
		t.Errorf("a small process that runs has a peak of %d MiB", used.peakBytes>>20)
	}
}

func TestFailedProcess(t *testing.T) {
	p := startSelf(t, "fails")
	_, err := p.wait(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), p.log) {
		t.Errorf("error %v", err)
	}
	if log, _ := os.ReadFile(p.log); string(log) != "cannot continue\n" {
		t.Errorf("logged: %q", log)
	}
	waiting, cancel := p.while(t.Context(), time.Hour)
	defer cancel()
	<-waiting.Done()
	if got := context.Cause(waiting).Error(); !strings.Contains(got, "has ended: exit status 3") {
		t.Errorf("the cause of the context is %s", got)
	}
}

package extsort

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSort(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		for _, n := range []int{0, 1, 10, 20_000} {
			t.Run(fmt.Sprintf("%d states, in memory: %t", n, dir == ""), func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				s := Sorter{Dir: dir}
				defer s.Reset()
				state := func(version uint64) []byte {
					return bytes.Repeat([]byte{byte(version), byte(version >> 8)}, int(version%700))
				}
				for _, i := range random.Perm(n) {
					s.Add(uint64(i+1), state(uint64(i+1)))
					if i%10 == 0 {
						s.Add(uint64(i+1), state(uint64(i+1)))
					}
				}
				if n == 20_000 && len(s.runs) < 3 {
					t.Errorf("only %d runs: nothing to merge", len(s.runs))
				}
				next := uint64(1)
				err := s.Drain(func(version uint64, got []byte) error {
					if version != next || !bytes.Equal(got, state(version)) {
						return fmt.Errorf("got version %d with %d bytes, want version %d", version, len(got), next)
					}
					next++
					return nil
				})
				if err != nil || next != uint64(n+1) {
					t.Errorf("drained %d of %d: %v", next-1, n, err)
				}
				s.Add(7, []byte("seven"))
				var again []uint64
				err = s.Drain(func(version uint64, _ []byte) error { again = append(again, version); return nil })
				if err != nil || !slices.Equal(again, []uint64{7}) {
					t.Errorf("used again after it was drained: %v, %v", again, err)
				}
				if dir == "" {
					return
				}
				if left, _ := os.ReadDir(dir); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

func TestDrainReturnsTheErrorOfVisit(t *testing.T) {
	s := Sorter{}
	s.Add(1, nil)
	s.Add(2, nil)
	stop := errors.New("stop")
	if err := s.Drain(func(uint64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// If the file fails, runs are stored in memory.
func TestFileError(t *testing.T) {
	s := Sorter{Dir: filepath.Join(t.TempDir(), "missing")}
	s.Add(2, []byte("two"))
	s.flushRun()
	s.Add(1, []byte("one"))
	s.flushRun()
	if !errors.Is(s.fileErr, os.ErrNotExist) {
		t.Errorf("error of the file: %v", s.fileErr)
	}
	var got []string
	if err := s.Drain(func(_ uint64, b []byte) error { got = append(got, string(b)); return nil }); err != nil {
		t.Error(err)
	}
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("drained %q", got)
	}
}

// Damaged runs are an error, not a shorter list.
func TestDamagedRuns(t *testing.T) {
	for name, damage := range map[string]func(*os.File) error{
		"cut":         func(f *os.File) error { return f.Truncate(5) },
		"zeroed":      func(f *os.File) error { _, err := f.WriteAt(make([]byte, 8), 0); return err },
		"overwritten": func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 12), 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s := Sorter{Dir: t.TempDir()}
			defer s.Reset()
			s.Add(1, []byte("a state of some length"))
			s.flushRun()
			if err := damage(s.file); err != nil {
				t.Fatal(err)
			}
			if err := s.Drain(func(uint64, []byte) error { return nil }); err == nil {
				t.Error("no error")
			}
		})
	}
}

// States of equal versions keep their order, in one run and across runs, also version 0.
func TestKeepEqual(t *testing.T) {
	s := Sorter{KeepEqual: true}
	for i := range 300 {
		s.Add(uint64(i%3), fmt.Appendf(nil, "%03d", i))
		if i%70 == 69 {
			s.flushRun()
		}
	}
	var want []string
	for version := range 3 {
		for i := version; i < 300; i += 3 {
			want = append(want, fmt.Sprintf("%03d", i))
		}
	}
	var got []string
	if err := s.Drain(func(_ uint64, b []byte) error { got = append(got, string(b)); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

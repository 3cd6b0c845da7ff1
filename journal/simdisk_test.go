package journal

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/hindsight-events/hindsight/journal/storage"
)

// simDisk is a storage that can fail as disks do: it loses what was not synced
// when the power goes, tears writes, is full, and fails to write or sync.
type simDisk struct {
	mu      sync.Mutex // guards everything, the files too
	names   map[string]*simFile
	durable map[string]*simFile // the names after a loss of power
	room    int64               // bytes that can still be allocated; negative: no bound

	failWrite func(name string) (short int, err error) // nil: none fail
	failSync  func(name string) error
	failRead  func(name string, at int64) error
	failCut   error // of Truncate
	failNames error // of sync
}

// simFile is a file of it.
type simFile struct {
	disk    *simDisk
	name    string // it was created under
	content []byte
	durable []byte
	dirty   map[int64]bool // sectors written since the last sync
}

// sector is what is written whole or not at all: smaller than on any disk, so
// that little things are torn too.
const sector = 64

func newSimDisk() *simDisk {
	return &simDisk{names: map[string]*simFile{}, durable: map[string]*simFile{}, room: -1}
}

// losePower returns what is found when the power is back: of what was not
// synced, any part of it, in sectors; of unsynced names any.
func (d *simDisk) losePower(rng *rand.Rand) *simDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newSimDisk()
	add := func(name string, f *simFile) {
		b := f.write(f.durable, func(int64) bool { return rng.IntN(2) == 0 })
		n := &simFile{disk: after, name: name, content: b, durable: slices.Clone(b), dirty: map[int64]bool{}}
		after.names[name], after.durable[name] = n, n
	}
	for name, f := range d.durable {
		if now, ok := d.names[name]; ok && now == f || rng.IntN(2) == 0 {
			add(name, f)
		} else if ok {
			add(name, now)
		}
	}
	for name, f := range d.names {
		if _, ok := d.durable[name]; !ok && rng.IntN(2) == 0 {
			add(name, f)
		}
	}
	return after
}

// killProcess returns what is found when only the process was killed: all that
// it wrote, and what of it was synced is as it was.
func (d *simDisk) killProcess() *simDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newSimDisk()
	copies := map[*simFile]*simFile{}
	for from, to := range map[*map[string]*simFile]map[string]*simFile{&d.names: after.names, &d.durable: after.durable} {
		for name, f := range *from {
			if copies[f] == nil {
				copies[f] = &simFile{
					disk: after, name: f.name, content: slices.Clone(f.content), durable: slices.Clone(f.durable),
					dirty: maps.Clone(f.dirty),
				}
			}
			to[name] = copies[f]
		}
	}
	return after
}

func (d *simDisk) Create(name string) (storage.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failWrite != nil {
		if _, err := d.failWrite(name); err != nil {
			return nil, err
		}
	}
	f := &simFile{disk: d, name: name, dirty: map[int64]bool{}}
	d.names[name] = f
	return f, nil
}

func (d *simDisk) Open(name string) (storage.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f, nil
}

func (d *simDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *simDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.names[name]; f != nil && d.room >= 0 {
		d.room += int64(len(f.content))
	}
	delete(d.names, name)
	return nil
}

func (d *simDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *simDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failNames != nil {
		return d.failNames
	}
	d.durable = maps.Clone(d.names)
	return nil
}

func (d *simDisk) Close() error { return nil }

func (f *simFile) ReadAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.failRead != nil {
		if err := f.disk.failRead(f.name, at); err != nil {
			return 0, err
		}
	}
	if at >= int64(len(f.content)) {
		return 0, io.EOF
	}
	n := copy(p, f.content[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	var failed error
	if f.disk.failWrite != nil {
		var short int
		if short, failed = f.disk.failWrite(f.name); failed != nil {
			p = p[:min(short, len(p))]
		}
	}
	if grown := at + int64(len(p)) - int64(len(f.content)); grown > 0 && f.disk.room >= 0 {
		if grown > f.disk.room {
			p = p[:max(0, int64(len(p))-(grown-f.disk.room))]
			failed = syscall.ENOSPC
		}
		f.disk.room -= max(0, at+int64(len(p))-int64(len(f.content)))
	}
	if len(p) > 0 {
		f.content = resize(f.content, max(len(f.content), int(at)+len(p)))
	}
	for i, b := range p {
		f.content[at+int64(i)] = b
		f.dirty[(at+int64(i))/sector] = true
	}
	return len(p), failed
}

func (f *simFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.failCut != nil {
		return f.disk.failCut
	}
	if size < int64(len(f.content)) {
		if f.disk.room >= 0 {
			f.disk.room += int64(len(f.content)) - size
		}
		f.content = f.content[:size]
	}
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return int64(len(f.content)), nil
}

func (f *simFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.failSync != nil {
		if err := f.disk.failSync(f.name); err != nil {
			// As on Linux: the pages are clean now, and not on disk. The next
			// sync will not write them.
			clear(f.dirty)
			return err
		}
	}
	f.durable = f.write(f.durable, func(int64) bool { return true })
	f.durable = resize(f.durable, len(f.content))
	clear(f.dirty)
	return nil
}

// write returns what is on disk after those dirty sectors were written that are
// chosen.
func (f *simFile) write(disk []byte, chosen func(sector int64) bool) []byte {
	disk = slices.Clone(disk)
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
		start, end := s*sector, min((s+1)*sector, int64(len(f.content)))
		if start < end && chosen(s) {
			disk = resize(disk, max(len(disk), int(end)))
			copy(disk[start:end], f.content[start:end])
		}
	}
	return disk
}

// resize cuts b, or fills it up with zeros.
func resize(b []byte, size int) []byte {
	if size <= len(b) {
		return b[:size]
	}
	return append(b, make([]byte, size-len(b))...)
}

func (f *simFile) Close() error { return nil }

// failOneSync makes the next sync fail.
func (d *simDisk) failOneSync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failSync = func(string) error {
		d.failSync = nil
		return syscall.EIO
	}
}

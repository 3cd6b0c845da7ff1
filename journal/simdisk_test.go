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

// simDisk is a storage.FS that fails as disks do: it loses unsynced writes with the power, tears
// writes, is full, and fails to write or sync.
type simDisk struct {
	mu      sync.Mutex // guards all fields, of the files too
	names   map[string]*simFile
	durable map[string]*simFile // the names after a power loss
	free    int64               // bytes; negative: unlimited

	failWrite    func(name string) (short int, err error) // nil: none fail
	failSync     func(name string) error
	failRead     func(name string, at int64) error
	failTruncate error
	failDirSync  error
}

type simFile struct {
	disk    *simDisk
	name    string // at its creation
	content []byte
	durable []byte
	dirty   map[int64]bool // sectors written since the last sync
}

// sector is the unit of a torn write, smaller than on any disk to tear small writes too.
const sector = 64

func newSimDisk() *simDisk {
	return &simDisk{names: map[string]*simFile{}, durable: map[string]*simFile{}, free: -1}
}

// losePower returns the disk after a power loss: it has any of the unsynced sectors and names.
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

// killProcess returns the disk after the process was killed: it has all writes, and they are as
// durable as before.
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
	if f := d.names[name]; f != nil && d.free >= 0 {
		d.free += int64(len(f.content))
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
	if d.failDirSync != nil {
		return d.failDirSync
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
	if grown := at + int64(len(p)) - int64(len(f.content)); grown > 0 && f.disk.free >= 0 {
		if grown > f.disk.free {
			p = p[:max(0, int64(len(p))-(grown-f.disk.free))]
			failed = syscall.ENOSPC
		}
		f.disk.free -= max(0, at+int64(len(p))-int64(len(f.content)))
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
	if f.disk.failTruncate != nil {
		return f.disk.failTruncate
	}
	if size < int64(len(f.content)) {
		if f.disk.free >= 0 {
			f.disk.free += int64(len(f.content)) - size
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
			// As on Linux: the pages are clean now, and the next sync does not write them.
			clear(f.dirty)
			return err
		}
	}
	f.durable = f.write(f.durable, func(int64) bool { return true })
	f.durable = resize(f.durable, len(f.content))
	clear(f.dirty)
	return nil
}

// write returns the content on disk after the chosen dirty sectors were written.
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

// resize truncates b or extends it with zeros.
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

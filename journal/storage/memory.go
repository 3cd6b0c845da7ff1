package storage

import (
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// Memory keeps files in memory. A removed file is freed once no reader has it open.
type Memory struct {
	mu    sync.Mutex // guards files
	files map[string]*memoryFile
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{files: make(map[string]*memoryFile)} }

func (m *Memory) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &memoryFile{}
	m.files[name] = f
	return f, nil
}

func (m *Memory) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f, nil
}

func (m *Memory) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[to] = m.files[from]
	delete(m.files, from)
	return nil
}

func (m *Memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

func (m *Memory) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files)), nil
}

func (m *Memory) Sync() error  { return nil }
func (m *Memory) Close() error { return nil }

// memoryFile grows by pages: growing copies nothing and allocates little in advance.
type memoryFile struct {
	mu    sync.RWMutex
	pages [][]byte // of pageSize
	size  int64
}

const pageSize = 32 << 10

func (f *memoryFile) ReadAt(p []byte, at int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := 0
	for n < len(p) && at < f.size {
		page := f.pages[at/pageSize]
		in := at % pageSize
		k := copy(p[n:], page[in:min(pageSize, in+f.size-at)])
		n += k
		at += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) WriteAt(p []byte, at int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(p) {
		for at/pageSize >= int64(len(f.pages)) {
			f.pages = append(f.pages, make([]byte, pageSize))
		}
		k := copy(f.pages[at/pageSize][at%pageSize:], p[n:])
		n += k
		at += int64(k)
	}
	f.size = max(f.size, at)
	return n, nil
}

func (f *memoryFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages = f.pages[:min((size+pageSize-1)/pageSize, int64(len(f.pages)))]
	f.size = min(f.size, size)
	return nil
}

func (f *memoryFile) Size() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.size, nil
}

func (f *memoryFile) Sync() error  { return nil }
func (f *memoryFile) Close() error { return nil }

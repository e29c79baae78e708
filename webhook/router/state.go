package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// state stores the last table and the trusted authorities across restarts of the router's container. The modification
// time of the table's file is when the table was last known to be right.
type state struct {
	dir   string // empty: nothing is stored
	saved time.Time
}

// saveEvery bounds how often the time of confirmation is written.
const saveEvery = 30 * time.Second

const (
	tableFile = "table.json"
	trustFile = "trust.pem"
)

// load returns the last table, and when it was last known to be right; nil if there is none.
func (s *state) load() (*route.Table, time.Time, error) {
	if s.dir == "" {
		return nil, time.Time{}, nil
	}
	f, err := os.Open(filepath.Join(s.dir, tableFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, time.Time{}, nil
	case err != nil:
		return nil, time.Time{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	frame, err := route.NewReader(f).ToRouter()
	switch {
	case err != nil:
		return nil, time.Time{}, fmt.Errorf("%s: %w", f.Name(), err)
	case frame.Snapshot == nil:
		return nil, time.Time{}, fmt.Errorf("%s: holds no table", f.Name())
	}
	return frame.Snapshot, info.ModTime(), nil
}

// save stores t.
func (s *state) save(t *route.Table) error {
	if s.dir == "" {
		return nil
	}
	b, err := json.Marshal(route.ToRouter{Snapshot: t})
	if err != nil {
		return err
	}
	s.saved = time.Now()
	return s.write(tableFile, append(b, '\n'))
}

// confirm records that the stored table is right at this time.
func (s *state) confirm(now time.Time) error {
	if s.dir == "" || now.Sub(s.saved) < saveEvery {
		return nil
	}
	s.saved = now
	return os.Chtimes(filepath.Join(s.dir, tableFile), now, now)
}

// loadTrust returns the stored authorities; nil if there are none.
func (s *state) loadTrust() []byte {
	if s.dir == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(s.dir, trustFile))
	if err != nil {
		return nil
	}
	return b
}

func (s *state) saveTrust(pem []byte) error {
	if s.dir == "" {
		return nil
	}
	return s.write(trustFile, pem)
}

// write replaces a file atomically: a crash leaves the old one or the new one.
func (s *state) write(name string, b []byte) error {
	f, err := os.CreateTemp(s.dir, name+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

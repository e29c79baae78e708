//go:build !linux

package cluster

import (
	"context"
	"fmt"
	"io"
	"runtime"
)

func unsupported() error {
	return fmt.Errorf("a cluster of its own needs Linux, and this is %s: %s", runtime.GOOS, WayOut)
}

// Up is for Linux only.
func (c *Cluster) Up(context.Context) error { return unsupported() }

// Down is for Linux only.
func (c *Cluster) Down(context.Context) error { return unsupported() }

// Load is for Linux only.
func (c *Cluster) Load(context.Context, ...string) error { return unsupported() }

// LoadFrom is for Linux only.
func (c *Cluster) LoadFrom(context.Context, io.Reader) error { return unsupported() }

// Status is for Linux only.
func (c *Cluster) Status() ([]PartStatus, error) { return nil, unsupported() }

// Exec is for Linux only.
func (c *Cluster) Exec(context.Context, io.Reader, io.Writer, io.Writer, string, ...string) error {
	return unsupported()
}

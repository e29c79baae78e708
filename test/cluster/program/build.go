package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
)

// keep is how long a program that no cluster uses any more stays in the cache.
const keep = 14 * 24 * time.Hour

// Builder builds programs into a cache.
type Builder struct {
	Modules  string // the folder that holds each program's module
	Cache    string // where what is built is kept
	Logs     string // where the output of builds goes, one file a program
	Progress *progress.Reporter
}

// Ensure returns the folder in the cache that holds the binaries of each of
// the programs, by name, and builds those that are not there.
func (b Builder) Ensure(ctx context.Context, programs ...Program) (map[string]string, error) {
	toolchain, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFLAGS", "GOFIPS140").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w (building the cluster's programs needs Go)", err)
	}
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for _, p := range programs {
		module := filepath.Join(b.Modules, p.Name)
		key, err := Key(p, os.DirFS(module), string(toolchain))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", module, err)
		}
		folder := filepath.Join(b.Cache, p.Name+"-"+key)
		if err := b.ensure(ctx, p, module, folder); err != nil {
			return nil, err
		}
		folders[p.Name] = folder
	}
	return folders, nil
}

func (b Builder) ensure(ctx context.Context, p Program, module, folder string) error {
	now := time.Now()
	if os.Chtimes(folder, now, now) == nil { // there, and in use from now on
		return nil
	}
	what := "building " + p.Name
	if p.Slow != "" {
		what += " (" + p.Slow + ")"
	}
	return b.Progress.Step(what, func() error {
		// Another clone may be at the same.
		unlock, err := lock(filepath.Join(b.Cache, p.Name+".lock"))
		if err != nil {
			return err
		}
		defer unlock()
		if _, err := os.Stat(folder); err == nil {
			return nil
		}
		if err := b.build(ctx, p, module, folder); err != nil {
			return err
		}
		return b.forget(p, folder)
	})
}

// build builds the program aside and gives it its name once it is whole.
func (b Builder) build(ctx context.Context, p Program, module, folder string) error {
	if err := os.MkdirAll(b.Logs, 0o755); err != nil {
		return err
	}
	logPath := filepath.Join(b.Logs, "build-"+p.Name+".log")
	output, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	// One by one: a later one may be looked for by a command that an earlier brings.
	for _, need := range p.Needs {
		for _, name := range Missing(ctx, need) {
			b.Progress.Say("installing Debian package %s", name)
			if err := Install(ctx, output, name); err != nil {
				return withTail(err, logPath)
			}
		}
	}
	gomod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return err
	}
	versions, err := versions(gomod)
	if err != nil {
		return err
	}
	aside, err := os.MkdirTemp(b.Cache, p.Name+".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(aside) }() // gone once it is renamed
	if err := os.Chmod(aside, 0o755); err != nil {
		return err
	}
	for _, binary := range p.Binaries {
		arguments := binary.arguments(versions)
		last := len(arguments) - 1
		arguments = append(arguments[:last:last], "-o", filepath.Join(aside, binary.Name), arguments[last])
		c := exec.CommandContext(ctx, "go", arguments...)
		c.Dir, c.Env = module, append(os.Environ(), binary.environment()...)
		c.Stdout, c.Stderr = output, output
		fmt.Fprintf(output, "+ %s\n", strings.Join(c.Args, " "))
		if err := c.Run(); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("building %s: %w", p.Name, context.Cause(ctx))
			}
			return withTail(fmt.Errorf("building %s: %w", binary.Name, err), logPath)
		}
	}
	for _, name := range p.Links {
		if err := os.Symlink(p.Binaries[0].Name, filepath.Join(aside, name)); err != nil {
			return err
		}
	}
	return os.Rename(aside, folder)
}

// forget removes builds of the program that nobody has used for long, and what
// builds that were cut off have left. The program's lock is held.
func (b Builder) forget(p Program, newest string) error {
	entries, err := os.ReadDir(b.Cache)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		folder := filepath.Join(b.Cache, entry.Name())
		unfinished := strings.HasPrefix(entry.Name(), p.Name+".new-") // nobody is at it, for the lock is held
		key, built := strings.CutPrefix(entry.Name(), p.Name+"-")
		built = built && !strings.Contains(key, "-") // or it is of a program whose name begins like this one's
		if folder == newest || !unfinished && !built {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue // removed by another
		}
		if unfinished || time.Since(info.ModTime()) > keep {
			if err := os.RemoveAll(folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// lock waits for an exclusive lock on a file, which it makes if need be.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = file.Close() }, nil
}

// withTail adds the end of a log to an error.
func withTail(err error, path string) error {
	tail, readErr := Tail(path, 25)
	if readErr != nil || tail == "" {
		return fmt.Errorf("%w (log: %s)", err, path)
	}
	return fmt.Errorf("%w; the end of %s:\n%s", err, path, tail)
}

// Tail returns the last lines of a file, no more than 64 KiB of them.
func Tail(path string, lines int) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	const most = 64 << 10
	data := make([]byte, min(info.Size(), most))
	if _, err := file.ReadAt(data, info.Size()-int64(len(data))); err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n"), nil
}

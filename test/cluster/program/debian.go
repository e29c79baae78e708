package program

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Package is something a machine must have that a Debian package brings.
type Package struct {
	Name    string
	present func(context.Context) bool
}

// Runtime returns what a running cluster needs: nft, by which kube-proxy and the
// portmap plugin write rules, and mount, by which the kubelet mounts volumes.
func Runtime() []Package {
	return []Package{{"nftables", command("nft")}, {"mount", command("mount")}}
}

// seccomp returns what it takes to link libseccomp, in the order in which to
// look: pkg-config is asked for the library.
func seccomp() []Package {
	return []Package{
		{"gcc", command("gcc")},
		{"libc6-dev", file("/usr/include/stdlib.h")},
		{"pkg-config", command("pkg-config")},
		{"libseccomp-dev", func(ctx context.Context) bool {
			return exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run() == nil
		}},
	}
}

func command(name string) func(context.Context) bool {
	return func(context.Context) bool { _, err := exec.LookPath(name); return err == nil }
}

func file(path string) func(context.Context) bool {
	return func(context.Context) bool { _, err := os.Stat(path); return err == nil }
}

// Missing returns the names of those packages that the machine lacks.
func Missing(ctx context.Context, packages ...Package) []string {
	var names []string
	for _, p := range packages {
		if !p.present(ctx) {
			names = append(names, p.Name)
		}
	}
	return names
}

// Install installs Debian packages. What apt-get says goes to log.
func Install(ctx context.Context, log io.Writer, names ...string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine lacks what Debian has in %s, and has no apt-get: install it by its own means", strings.Join(names, ", "))
	}
	apt := func(arguments ...string) error {
		c := exec.CommandContext(ctx, "apt-get", arguments...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stdout, c.Stderr = log, log
		return c.Run()
	}
	install := append([]string{"install", "-y", "-q", "--no-install-recommends"}, names...)
	if apt(install...) == nil { // the lists that are there may do
		return nil
	}
	if err := apt("update", "-q"); err != nil {
		return fmt.Errorf("apt-get update: %w", err)
	}
	if err := apt(install...); err != nil {
		return fmt.Errorf("apt-get install %s: %w", strings.Join(names, " "), err)
	}
	return nil
}

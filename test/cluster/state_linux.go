package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// prepare makes the folders and files of the state.
func (u *up) prepare() error {
	for _, dir := range []string{"config/cni", "var/tmp", "var/log", "var/lib", "log", "etcd"} {
		if err := os.MkdirAll(u.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(u.path("etcd"), 0o700); err != nil {
		return err
	}
	// The machine's programs look for these in /var.
	for name, target := range map[string]string{"var/run": "/run", "var/lock": "/run/lock"} {
		if err := link(target, u.path(name)); err != nil {
			return err
		}
	}
	if err := u.keys(); err != nil {
		return err
	}
	files, err := configFiles(u.values)
	if err != nil {
		return err
	}
	pem := func(name string) ([]byte, error) { return os.ReadFile(u.path("pki", name)) }
	ca, err := pem("ca.crt")
	if err != nil {
		return err
	}
	for user := range users() {
		certificate, err := pem(user + ".crt")
		if err != nil {
			return err
		}
		key, err := pem(user + ".key")
		if err != nil {
			return err
		}
		path := "config/" + user + ".kubeconfig"
		if user == "admin" {
			path = "kubeconfig"
		}
		files[path] = kubeconfig(user, ca, certificate, key)
	}
	for path, content := range files {
		if now, err := os.ReadFile(u.path(path)); err == nil && bytes.Equal(now, content) {
			continue
		}
		if err := writeFile(u.path(path), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// keys makes all keys and certificates at once, or leaves those there are.
func (u *up) keys() error {
	if _, err := os.Stat(u.path("pki")); err == nil {
		return nil
	}
	files, err := newPKI(time.Now())
	if err != nil {
		return err
	}
	aside := u.path("pki.new")
	if err := errors.Join(os.RemoveAll(aside), os.Mkdir(aside, 0o700)); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(aside, name), content, 0o600); err != nil {
			return err
		}
	}
	return os.Rename(aside, u.path("pki"))
}

// link makes path a link to target.
func link(target, path string) error {
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	aside := path + ".new"
	if err := errors.Join(os.RemoveAll(aside), os.Symlink(target, aside)); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

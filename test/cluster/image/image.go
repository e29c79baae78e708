// Package image makes container images of static Go binaries, without a
// container engine or a registry. The same input gives the same bytes, and so
// the same digest, on every machine and at any time.
package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// User is the user and group that images run as, by default: not root, and not
// one of the machine's own.
const User = 65532

// Spec says what an image holds.
type Spec struct {
	// Binary is the path of a statically linked Linux executable.
	Binary string
	// Path is where the binary lies in the image; "/" and its file name by default.
	Path string
	// Files are further files and folders, the path in the image to that on disk.
	Files map[string]string
	// Entrypoint is Path alone by default.
	Entrypoint []string
	// Cmd are default arguments.
	Cmd []string
	// Env are variables, each NAME=VALUE.
	Env []string
	// Ports are those the image is said to listen on, each as 8080/tcp.
	Ports []string
	// Root runs it as root instead of User.
	Root bool
}

// Build makes an image of one layer, which is not compressed: what makes these
// images is on the same machine as what runs them.
func Build(spec Spec) (v1.Image, error) {
	arch, err := architecture(spec.Binary)
	if err != nil {
		return nil, err
	}
	if spec.Path == "" {
		spec.Path = "/" + path.Base(spec.Binary)
	}
	if len(spec.Entrypoint) == 0 {
		spec.Entrypoint = []string{spec.Path}
	}
	layer, err := layer(spec)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: epoch()}
	config.Config = v1.Config{
		Entrypoint: spec.Entrypoint,
		Cmd:        spec.Cmd,
		Env:        append([]string{"PATH=/"}, spec.Env...),
		WorkingDir: "/",
	}
	if !spec.Root {
		config.Config.User = fmt.Sprintf("%d:%d", User, User)
	}
	for _, port := range spec.Ports {
		if config.Config.ExposedPorts == nil {
			config.Config.ExposedPorts = map[string]struct{}{}
		}
		config.Config.ExposedPorts[port] = struct{}{}
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON), nil
}

// Write writes the image under a name (REPOSITORY:TAG) as an archive that
// docker load, ctr images import, kind and k3d read.
func Write(w io.Writer, reference string, img v1.Image) error {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("image name %q: %w (wanted: REPOSITORY:TAG)", reference, err)
	}
	return tarball.Write(tag, img, w)
}

// WriteFile is Write into a file, which it makes as a whole or not at all.
func WriteFile(path, reference string, img v1.Image) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // fails once it is renamed
	err = Write(file, reference, img)
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// epoch is the time that everything in an image bears.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

// layer holds the binary, the files, a writable /tmp and the two users.
func layer(spec Spec) (v1.Layer, error) {
	files := map[string]string{spec.Path: spec.Binary}
	for in, on := range spec.Files {
		if err := gather(files, path.Clean("/"+in), on); err != nil {
			return nil, err
		}
	}
	var data bytes.Buffer
	w := &writer{Writer: tar.NewWriter(&data), made: map[string]bool{"/": true}}
	w.folder("/tmp", 0o1777)
	w.file("/etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/:/\nnonroot:x:%d:%d:nonroot:/tmp:/\n", User, User))
	w.file("/etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", User))
	for _, in := range sorted(files) {
		content, err := os.ReadFile(files[in])
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(files[in])
		if err != nil {
			return nil, err
		}
		// No more of the mode than whether it can be run: the rest is umask.
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		w.file(in, mode, content)
	}
	if err := errors.Join(w.err, w.Close()); err != nil {
		return nil, err
	}
	return static.NewLayer(data.Bytes(), types.OCIUncompressedLayer), nil
}

// gather adds the file on disk, or all files below the folder on disk, to files.
func gather(files map[string]string, in, on string) error {
	info, err := os.Stat(on)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		files[in] = on
		return nil
	}
	entries, err := os.ReadDir(on)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := gather(files, path.Join(in, entry.Name()), path.Join(on, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// writer writes a tar, with the folders that files need, until the first error.
type writer struct {
	*tar.Writer
	made map[string]bool
	err  error
}

func (w *writer) folder(name string, mode int64) {
	if w.made[name] {
		return
	}
	w.folder(path.Dir(name), 0o755)
	w.made[name] = true
	w.entry(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(name, "/") + "/", Mode: mode}, nil)
}

func (w *writer) file(name string, mode int64, content []byte) {
	w.folder(path.Dir(name), 0o755)
	w.entry(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(content))}, content)
}

func (w *writer) entry(h *tar.Header, content []byte) {
	if w.err != nil {
		return
	}
	h.ModTime = epoch()
	if w.err = w.WriteHeader(h); w.err == nil {
		_, w.err = w.Write(content)
	}
}

// architecture returns that of an executable, as Go names it, and an error when
// it can't run in an image that holds nothing else.
func architecture(binary string) (string, error) {
	content, err := os.Open(binary)
	if err != nil {
		return "", err
	}
	defer func() { _ = content.Close() }()
	file, err := elf.NewFile(content)
	if err != nil {
		return "", fmt.Errorf("%s is no Linux executable: %w (build it with GOOS=linux)", binary, err)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is dynamically linked, and the image will hold no libraries (build it with CGO_ENABLED=0)", binary)
		}
	}
	switch file.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	default:
		return "", fmt.Errorf("%s is for %s; images are made for amd64 and arm64", binary, file.Machine)
	}
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

package apps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/image"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/program"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
)

// Builder returns what builds the programs of the clone at root: its cache is the one of the cluster's own programs, in the
// user's cache folder, so that all clones share it.
func Builder(root string, p *progress.Reporter) (program.Builder, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return program.Builder{}, fmt.Errorf("no folder for built programs: %w (set XDG_CACHE_HOME)", err)
	}
	cache = filepath.Join(cache, "kubectl-sandbox", "programs")
	return program.Builder{Modules: filepath.Join(root, "test", "apps"), Cache: cache, Logs: filepath.Join(cache, "log"), Progress: p}, nil
}

// Archives returns paths of archives that together hold the images. It builds with b (whose Modules is the folder of this
// file) and keeps archives in b.Cache, under a name made of what they hold: a second call only looks.
func Archives(ctx context.Context, b program.Builder, images []Image) ([]string, error) {
	var programs []program.Program
	byProgram := map[string][]Image{}
	for _, i := range images {
		if byProgram[i.Program.Name] == nil {
			programs = append(programs, i.Program)
		}
		byProgram[i.Program.Name] = append(byProgram[i.Program.Name], i)
	}
	folders, err := b.Ensure(ctx, programs...)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, p := range programs {
		path := filepath.Join(b.Cache, "image-"+p.Name+"-"+key(folders[p.Name], byProgram[p.Name])+".tar")
		paths = append(paths, path)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := pack(path, folders[p.Name], byProgram[p.Name]); err != nil {
			return nil, fmt.Errorf("image of %s: %w", p.Name, err)
		}
	}
	return paths, nil
}

// key names what pack makes of the images. The folder's name stands for the binaries in it.
func key(folder string, images []Image) string {
	h := sha256.New()
	fmt.Fprintf(h, "2 %q\n", filepath.Base(folder)) // counted up when pack changes
	for _, i := range images {
		fmt.Fprintf(h, "%q %q %q %q\n", i.Ref, i.Binary, i.Args, i.Env)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// pack writes one archive of all the images, which share the layer with the binary.
func pack(path, folder string, images []Image) error {
	tagged := map[name.Tag]v1.Image{}
	for _, i := range images {
		tag, err := name.NewTag(i.Ref, name.StrictValidation)
		if err != nil {
			return err
		}
		tagged[tag], err = image.Build(image.Spec{
			Binary:     filepath.Join(folder, i.Binary),
			Entrypoint: append([]string{"/" + i.Binary}, i.Args...),
			Env:        i.Env,
		})
		if err != nil {
			return err
		}
	}
	file, err := os.CreateTemp(filepath.Dir(path), "image-*.new")
	if err != nil {
		return err
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name()) // no longer there once it was renamed
	}()
	if err := tarball.MultiWrite(tagged, file); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

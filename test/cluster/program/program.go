// Package program builds the third-party programs that a cluster consists of
// from their Go modules, once a machine: what is built is kept in a cache that
// all clones share, under a key made of everything the build depends on.
package program

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// Program is a set of binaries that are built from one module and kept in one
// folder.
type Program struct {
	// Name is the folder of the module among the modules.
	Name string
	// Binaries are what is built, in this order.
	Binaries []Binary
	// Links are further names of the first binary.
	Links []string
	// Needs are the Debian packages that the build takes beside Go.
	Needs []Package
	// Slow is said of a build that takes minutes, so that nobody gives up on it.
	Slow string
}

// Binary is one binary of a program.
type Binary struct {
	Name    string // of the file
	Package string // the Go package, "." for the module's own
	Tags    []string
	// Variables are set by the linker (-X). In a value, {MODULE} stands for the
	// version of that module in go.mod, and {MODULE:major}, {MODULE:minor} for a
	// part of it.
	Variables map[string]string
	// C links C libraries, statically.
	C bool
}

// All returns every program, slowest build first.
func All() []Program {
	const (
		kubernetes = "k8s.io/kubernetes"
		containerd = "github.com/containerd/containerd/v2"
		plugins    = "github.com/containernetworking/plugins"
		helm       = "helm.sh/helm/v4"
		version    = "k8s.io/component-base/version."
	)
	kubernetesVersion := map[string]string{
		version + "gitVersion": "{" + kubernetes + "}",
		version + "gitMajor":   "{" + kubernetes + ":major}",
		version + "gitMinor":   "{" + kubernetes + ":minor}",
	}
	containerdBinary := func(name string) Binary {
		return Binary{
			Name: name, Package: containerd + "/cmd/" + name,
			// Snapshotters and file systems that this node has no use for.
			Tags:      []string{"no_btrfs", "no_devmapper", "no_zfs"},
			Variables: map[string]string{containerd + "/version.Version": "{" + containerd + "}"},
		}
	}
	cniBinary := func(path string) Binary {
		return Binary{
			Name: path[strings.LastIndexByte(path, '/')+1:], Package: plugins + "/plugins/" + path,
			Variables: map[string]string{plugins + "/pkg/utils/buildversion.BuildVersion": "{" + plugins + "}"},
		}
	}
	return []Program{
		{
			Name: "kubernetes",
			Binaries: []Binary{
				{Name: "kubernetes", Package: ".", Variables: kubernetesVersion},
				// Of its own, for it starts in half the time then.
				{Name: "kubectl", Package: kubernetes + "/cmd/kubectl", Variables: kubernetesVersion},
			},
			Links: []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"},
			Slow:  "about 8 minutes on 2 cores, once a machine",
		},
		{
			Name:     "containerd",
			Binaries: []Binary{containerdBinary("containerd"), containerdBinary("containerd-shim-runc-v2"), containerdBinary("ctr")},
			Slow:     "about a minute",
		},
		{
			Name: "runc",
			// Without seccomp, runc refuses every pod that names a seccomp profile,
			// and the kubelet names one for all.
			Binaries: []Binary{{Name: "runc", Package: "github.com/opencontainers/runc", Tags: []string{"seccomp", "netgo", "osusergo"}, C: true}},
			Needs:    seccomp(),
		},
		{
			Name:     "cni",
			Binaries: []Binary{cniBinary("main/ptp"), cniBinary("main/loopback"), cniBinary("ipam/host-local"), cniBinary("meta/portmap")},
		},
		{Name: "coredns", Binaries: []Binary{{Name: "coredns", Package: "."}}, Slow: "about a minute"},
		{
			Name: "helm",
			Binaries: []Binary{{Name: "helm", Package: helm + "/cmd/helm",
				Variables: map[string]string{helm + "/internal/version.version": "{" + helm + "}"}}},
			Slow: "about 2 minutes",
		},
		{Name: "node", Binaries: []Binary{{Name: "node", Package: "."}}},
		{Name: "pause", Binaries: []Binary{{Name: "pause", Package: "."}}},
	}
}

// Key names what the program's build gives: programs with equal keys are equal.
// It covers the files of the module (go.sum pins its dependencies), how it is
// built, and the toolchain, as toolchain tells it.
func Key(p Program, module fs.FS, toolchain string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %+v\n", toolchain, p.Name, p.Links)
	for _, b := range p.Binaries {
		fmt.Fprintf(h, "%q %q\n", b.Name, b.arguments(nil))
		for _, name := range sortedKeys(b.Variables) {
			fmt.Fprintf(h, "%q %q\n", name, b.Variables[name])
		}
	}
	files, err := fs.Glob(module, "*")
	if err != nil {
		return "", err
	}
	for _, name := range files { // sorted by Glob
		content, err := fs.ReadFile(module, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %x\n", name, sha256.Sum256(content))
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// arguments returns those of the go command that builds the binary, but for
// where it goes. versions gives the version of a module.
func (b Binary) arguments(versions map[string]string) []string {
	flags := []string{"-s", "-w"}
	if b.C {
		flags = append(flags, "-extldflags", "-static")
	}
	for _, name := range sortedKeys(b.Variables) {
		flags = append(flags, "-X", name+"="+expand(b.Variables[name], versions))
	}
	return []string{"build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-tags=" + strings.Join(b.Tags, ","), "-ldflags=" + strings.Join(flags, " "), b.Package}
}

// environment returns the variables that the go command needs for the binary
// beside those it inherits.
func (b Binary) environment() []string {
	c := "0"
	if b.C {
		c = "1"
	}
	return []string{"GOWORK=off", "GOOS=linux", "CGO_ENABLED=" + c}
}

// versions returns the version that a go.mod gives each module it requires.
func versions(gomod []byte) (map[string]string, error) {
	file, err := modfile.ParseLax("go.mod", gomod, nil)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, r := range file.Require {
		found[r.Mod.Path] = r.Mod.Version
	}
	return found, nil
}

func expand(value string, versions map[string]string) string {
	for module, version := range versions {
		major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
		minor, _, _ := strings.Cut(rest, ".")
		value = strings.NewReplacer("{"+module+"}", version, "{"+module+":major}", major, "{"+module+":minor}", minor).Replace(value)
	}
	return value
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Package appliers has the programs by which teams bring manifests to a cluster: kubectl, Helm 3 and 4, and the engines of Flux
// and Argo CD. Each is the real program, or its own library behind a small main, built from a Go module of its own.
package appliers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/program"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
)

// A Way is one way to apply manifests.
type Way string

// The ways, each as its users call it.
const (
	Client           Way = "kubectl apply"
	Server           Way = "kubectl apply --server-side"
	ServerForced     Way = "kubectl apply --server-side --force-conflicts"
	Replace          Way = "kubectl replace"
	Helm3            Way = "Helm 3 upgrade"
	Helm4            Way = "Helm 4 upgrade"
	Flux             Way = "Flux apply"
	ArgoCD           Way = "Argo CD sync"
	ArgoCDServerSide Way = "Argo CD sync with ServerSideApply"
)

// Ways returns all of them.
func Ways() []Way {
	return []Way{Client, Server, ServerForced, Replace, Helm3, Helm4, Flux, ArgoCD, ArgoCDServerSide}
}

// Slug returns the way's name as a part of objects' names.
func (w Way) Slug() string {
	return map[Way]string{
		Client: "client", Server: "server", ServerForced: "forced", Replace: "replace", Helm3: "helm3", Helm4: "helm4",
		Flux: "flux", ArgoCD: "argocd", ArgoCDServerSide: "argocd-server",
	}[w]
}

// longest is how long one application may take.
const longest = 2 * time.Minute

// Tools are the programs on this machine.
type Tools struct {
	kubeconfig                          string
	kubectl, helm3, helm4, flux, argocd string
}

// New builds what is not built yet, into the cache that all clones share. Root is that of the repository; kubectl and Helm 4
// are the cluster's own, in its folder of programs.
func New(ctx context.Context, root, programs, kubeconfig string, report *progress.Reporter) (*Tools, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no folder for built programs: %w (set XDG_CACHE_HOME)", err)
	}
	cache = filepath.Join(cache, "kubectl-sandbox", "programs")
	builder := program.Builder{Modules: filepath.Join(root, "test", "appliers"), Cache: cache, Logs: filepath.Join(cache, "log"), Progress: report}
	folders, err := builder.Ensure(ctx, Programs()...)
	if err != nil {
		return nil, err
	}
	return &Tools{
		kubeconfig: kubeconfig,
		kubectl:    filepath.Join(programs, "kubectl"),
		helm4:      filepath.Join(programs, "helm"),
		helm3:      filepath.Join(folders["helm3"], "helm"),
		flux:       filepath.Join(folders["flux"], "flux"),
		argocd:     filepath.Join(folders["argocd"], "argocd"),
	}, nil
}

// Programs returns what is built beside the cluster's own programs.
func Programs() []program.Program {
	const about = "about 2 minutes, once a machine"
	return []program.Program{
		{Name: "helm3", Binaries: []program.Binary{{Name: "helm", Package: "helm.sh/helm/v3/cmd/helm"}}, Slow: about},
		{Name: "flux", Binaries: []program.Binary{{Name: "flux", Package: "."}}, Slow: about},
		{Name: "argocd", Binaries: []program.Binary{{Name: "argocd", Package: "."}}, Slow: about},
	}
}

// A Release is a set of manifests that is brought to a namespace again and again.
type Release struct {
	Namespace string
	Name      string // of the Helm release, or of the Application
	Manifests string // YAML documents
	Folder    string // for files, of this release alone
}

// Install brings a release to a namespace that has none of its objects.
func (t *Tools) Install(ctx context.Context, w Way, r Release) (string, error) {
	if w != Replace {
		return t.Apply(ctx, w, r)
	}
	file, err := r.write()
	if err != nil {
		return "", err
	}
	return t.run(ctx, t.kubectl, "-n", r.Namespace, "create", "-f", file)
}

// Apply brings a release to its namespace, and returns what the program printed.
func (t *Tools) Apply(ctx context.Context, w Way, r Release) (string, error) {
	file, err := r.write()
	if err != nil {
		return "", err
	}
	switch w {
	case Client:
		return t.run(ctx, t.kubectl, "-n", r.Namespace, "apply", "-f", file)
	case Server:
		return t.run(ctx, t.kubectl, "-n", r.Namespace, "apply", "--server-side", "-f", file)
	case ServerForced:
		return t.run(ctx, t.kubectl, "-n", r.Namespace, "apply", "--server-side", "--force-conflicts", "-f", file)
	case Replace:
		return t.run(ctx, t.kubectl, "-n", r.Namespace, "replace", "-f", file)
	case Helm3:
		return t.upgrade(ctx, t.helm3, r)
	case Helm4:
		return t.upgrade(ctx, t.helm4, r)
	case Flux:
		return t.run(ctx, t.flux, r.Namespace, file)
	case ArgoCD:
		return t.run(ctx, t.argocd, r.Namespace, r.Name, file)
	case ArgoCDServerSide:
		return t.run(ctx, t.argocd, "-server-side", r.Namespace, r.Name, file)
	}
	return "", fmt.Errorf("%q: no such way to apply manifests", w)
}

// Rollback returns a Helm release to its revision before the current one.
func (t *Tools) Rollback(ctx context.Context, w Way, r Release) (string, error) {
	program := map[Way]string{Helm3: t.helm3, Helm4: t.helm4}[w]
	if program == "" {
		return "", fmt.Errorf("%q: rollback: only Helm has releases", w)
	}
	return t.run(ctx, program, "rollback", r.Name, "-n", r.Namespace)
}

// Drift returns how the cluster differs from the manifests by the way's own dry run on the server; empty: not at all.
// Of Helm there is none.
func (t *Tools) Drift(ctx context.Context, w Way, r Release) (string, error) {
	file, err := r.write()
	if err != nil {
		return "", err
	}
	args := []string{"-n", r.Namespace, "diff", "-f", file}
	switch w {
	case Client:
	case Server, ServerForced:
		args = append(args, "--server-side")
	case Flux:
		// It applies what a dry run says differs, and names the rest unchanged.
		out, err := t.run(ctx, t.flux, r.Namespace, file)
		return linesWithout(out, " unchanged"), err
	default:
		return "", nil
	}
	out, err := t.run(ctx, t.kubectl, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // there are differences
		return out, nil
	}
	return "", err
}

func linesWithout(text, word string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, word) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// upgrade installs or upgrades a chart of the manifests alone.
func (t *Tools) upgrade(ctx context.Context, helm string, r Release) (string, error) {
	chart := filepath.Join(r.Folder, "chart")
	if err := os.MkdirAll(filepath.Join(chart, "templates"), 0o755); err != nil {
		return "", err
	}
	for name, content := range map[string]string{
		"Chart.yaml":             fmt.Sprintf("apiVersion: v2\nname: %s\nversion: 0.1.0\n", r.Name),
		"templates/objects.yaml": r.Manifests,
	} {
		if err := os.WriteFile(filepath.Join(chart, name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	return t.run(ctx, helm, "upgrade", r.Name, chart, "--install", "--take-ownership", "-n", r.Namespace)
}

func (r Release) write() (string, error) {
	if err := os.MkdirAll(r.Folder, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(r.Folder, "objects.yaml")
	return file, os.WriteFile(file, []byte(r.Manifests), 0o600)
}

func (t *Tools) run(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+t.kubeconfig)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, out.Bytes())
	}
	return out.String(), nil
}

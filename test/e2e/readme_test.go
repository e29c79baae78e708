package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/readme"
)

// The README's tour, command by command in one shell, prints what the README says it does.
func TestTheREADMEsTour(t *testing.T) {
	t.Parallel()
	root := filepath.Dir(shared.programs)
	demo := shared.command(t.Context(), "go", "-C", filepath.Join(root, "test"), "run", "./demo", "-root=..", "-own="+filepath.Join(shared.programs, "cluster"))
	demo.Path = must[string](t)(exec.LookPath("go"))
	if r := run(demo); r.err != nil {
		t.Fatal(r)
	}
	path := filepath.Join(root, "README.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := readme.Parse(string(content))
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.Contexts[config.CurrentContext].Namespace = "hotrod"
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	shell, err := readme.NewShell(t.Context(), root, append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+shared.programs+":"+os.Getenv("PATH")))
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	var outputs []string
	for _, s := range steps {
		out, err := shell.Run(s.Command)
		if err != nil {
			t.Errorf("README.md:%d: %s: %v\n%s", s.Line, s.Command, err, out)
		}
		if got, want := readme.Normalize(out), readme.Normalize(s.Want); got != want && !*update {
			t.Errorf("README.md:%d: %s\nprinted\n%s\nwant\n%s\nor, but for what differs every time,\n%s\nwant\n%s", s.Line, s.Command, out, s.Want, got, want)
		}
		outputs = append(outputs, out)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(path, []byte(readme.Fill(string(content), steps, outputs)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

package command_test

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/command"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sandbox": func() {
			cmd := command.New(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
			cmd.Version = "v1.2.3"
			os.Exit(command.Run(context.Background(), cmd, os.Args[1:]))
		},
	})
}

// The command line as far as it goes without a cluster; what talks to one is tested on a real one.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("KUBECONFIG", e.WorkDir+"/kubeconfig")
			return nil
		},
	})
}

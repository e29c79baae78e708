package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// What a cluster says reaches a terminal as text, and by -o yaml as it is.
func TestMakeLegible(t *testing.T) {
	for output, raw := range map[string]bool{"-": false, "": false, "wide": false, "name": false, "json": false, "yaml": true, "jsonpath={.data}": true} {
		var out, errOut bytes.Buffer
		streams := genericiooptions.IOStreams{Out: &out, ErrOut: &errOut}
		tool := &tool{IOStreams: streams, screen: streams}
		cmd := &cobra.Command{}
		if output != "-" {
			cmd.Flags().String("output", output, "")
		}
		tool.makeLegible(cmd)
		for _, w := range []interface{ Write([]byte) (int, error) }{tool.Out, tool.ErrOut} {
			if _, err := w.Write([]byte("a\x1b]52;c;x\x07\n")); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(out.String(), "\x1b") != raw || strings.Contains(errOut.String(), "\x1b") {
			t.Errorf("--output=%s: got %q and %q", output, out.String(), errOut.String())
		}
	}
}

// An error's text is the cluster's as well.
func TestRun_ErrorsDoNothingToATerminal(t *testing.T) {
	var out, errOut bytes.Buffer
	cmd := New(genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &errOut})
	for _, args := range [][]string{{"list", "-\x1b[2Jo"}, {"status", "\u202ename", "-ojson"}} {
		errOut.Reset()
		if code := Run(t.Context(), cmd, args); code == 0 || errOut.Len() == 0 || strings.ContainsAny(errOut.String(), "\x1b\u202e") {
			t.Errorf("%q: exit status %d, %q", args, code, errOut.String())
		}
	}
}

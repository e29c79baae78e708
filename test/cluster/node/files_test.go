//go:build linux

package node_test

import (
	"errors"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/node"
)

func TestProgramsInheritNoFilesThatThisProcessInherited(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil { // without close-on-exec: as inherited
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Close(pipe[0]), unix.Close(pipe[1])); err != nil {
			t.Error(err)
		}
	})
	has := func() bool {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "[ -e /proc/self/fd/"+strconv.Itoa(pipe[1])+" ] && echo yes").Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out) == "yes\n"
	}
	if !has() {
		t.Fatal("the test is blind: the file was not inherited to begin with")
	}
	if err := node.KeepFiles(); err != nil {
		t.Fatal(err)
	}
	if has() {
		t.Error("it is inherited still")
	}
}

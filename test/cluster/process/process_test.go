//go:build linux

package process

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

func TestIdentityOutlivesTheReuseOfItsNumber(t *testing.T) {
	self, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.Running() {
		t.Fatal("this process is said not to run")
	}
	later, earlierBoot := self, self
	later.Start++
	earlierBoot.Boot = "another boot"
	for _, other := range []ID{later, earlierBoot, {}} {
		if other.Running() {
			t.Errorf("%+v is said to run; only the number is that of a process", other)
		}
		// Were the identity not checked, this would end the test.
		if err := other.Kill(t.Context()); err != nil {
			t.Errorf("Kill(%+v): %v", other, err)
		}
	}
}

func TestKillEndsTheProcess(t *testing.T) {
	command := exec.Command("sleep", "600")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Of(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Not waited for, so it is a zombie now: it no longer runs.
	if id.Running() {
		t.Error("killed, and still said to run")
	}
	if err := command.Wait(); err == nil {
		t.Error("sleep ended well")
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Errorf("killing it once more: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	const tail = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 %d 18 4242 20 21"
	for _, name := range []string{"(etcd)", "(a b)", "(a) Z 1 (b)", "()"} {
		for _, tt := range []struct {
			state   string
			threads int
			ended   bool
		}{{"S", 17, false}, {"S", 1, false}, {"Z", 1, true}, {"Z", 3, false}, {"X", 0, true}} {
			stat := "17 " + name + " " + tt.state + fmt.Sprintf(tail, tt.threads)
			if start, ended, err := parseStat([]byte(stat)); err != nil || start != 4242 || ended != tt.ended {
				t.Errorf("%s: start %d, ended %t, error %v", stat, start, ended, err)
			}
		}
	}
	for _, bad := range []string{"", "17 etcd S 1", "17 (etcd) S 1 2"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read without an error", bad)
		}
	}
}

package sandbox

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

func TestValidateName_TakesLabelsOnly(t *testing.T) {
	for _, ok := range []string{"a", "pr-42", "0", strings.Repeat("x", MaxName)} {
		if err := ValidateName(ok); err != nil {
			t.Errorf("ValidateName(%q) = %v, want nil", ok, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", "a/b", strings.Repeat("x", MaxName+1)} {
		if ValidateName(bad) == nil {
			t.Errorf("ValidateName(%q) = nil, want an error", bad)
		}
	}
}

func TestValidateKey_TakesWhatNeedsNoEscaping(t *testing.T) {
	for _, ok := range []string{"a", "pr-42", "a.b_c-d", strings.Repeat("k", MaxKey)} {
		if err := ValidateKey(ok); err != nil {
			t.Errorf("ValidateKey(%q) = %v, want nil", ok, err)
		}
	}
	for _, bad := range []string{"", "-a", "a.", "A", "a=b", "a,b", "a;b", "a%20", "a b", "a\n", strings.Repeat("k", MaxKey+1)} {
		if ValidateKey(bad) == nil {
			t.Errorf("ValidateKey(%q) = nil, want an error", bad)
		}
	}
}

func TestNewKeyAndName_AreValidAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		key, name := NewKey(), NewName()
		if err := ValidateKey(key); err != nil {
			t.Fatalf("NewKey() = %q: %v", key, err)
		}
		if err := ValidateName(name); err != nil {
			t.Fatalf("NewName() = %q: %v", name, err)
		}
		if len(key)*5 < 80 {
			t.Fatalf("NewKey() = %q has fewer than 80 bits", key)
		}
		if seen[key] {
			t.Fatalf("NewKey() = %q came twice", key)
		}
		seen[key] = true
	}
}

func TestForkName_LeavesRoomForThePodSuffixAndStaysALabel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		baseline := rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?`).Draw(t, "baseline")
		name := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?`).Draw(t, "sandbox")
		workload := WorkloadLabel("Deployment", baseline)
		for _, got := range []string{ForkName(workload, baseline, name), ForkNameHashed(workload, baseline, name)} {
			if pod := got + "-0123456789-abcde"; len(pod) > 63 {
				t.Fatalf("pod %q of fork %q has more than 63 bytes", pod, got)
			}
			if !label.MatchString(got) {
				t.Fatalf("fork name %q is no label", got)
			}
		}
		if len(workload) > 63 {
			t.Fatalf("WorkloadLabel = %q has more than 63 bytes", workload)
		}
	})
}

func TestForkNameHashed_TellsApartWhatForkNameConfuses(t *testing.T) {
	w1, w2 := WorkloadLabel("Deployment", "a"), WorkloadLabel("Deployment", "a-b")
	if ForkName(w1, "a", "b-c") != ForkName(w2, "a-b", "c") {
		t.Fatal("the example no longer collides: choose another")
	}
	if ForkNameHashed(w1, "a", "b-c") == ForkNameHashed(w2, "a-b", "c") {
		t.Error("hashed names collide as well")
	}
	if ForkName(w1, "a", "b") == ForkName(w2, "a-b", "b") {
		t.Error("names of different baselines are the same")
	}
}

func TestWorkloadLabel_TellsLongNamesApart(t *testing.T) {
	long := strings.Repeat("n", 70)
	if WorkloadLabel("Deployment", long+"a") == WorkloadLabel("Deployment", long+"b") {
		t.Error("two long names have one label")
	}
	if got := WorkloadLabel("StatefulSet", "db"); got != "statefulset.db" {
		t.Errorf("WorkloadLabel = %q", got)
	}
}

func TestPolicyName_FitsAndTellsApart(t *testing.T) {
	if got, want := PolicyName("Deployment", "api", "from-web"), "sandbox-route-deployment-api-from-web"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	long := strings.Repeat("x", 250)
	a, b := PolicyName("Deployment", long, "forks"), PolicyName("Deployment", long, "")
	if len(a) > 253 || len(b) > 253 || a == b {
		t.Errorf("%q and %q must be two names of at most 253 bytes", a, b)
	}
}

func TestCheckName_FitsAndTellsApart(t *testing.T) {
	if CheckName("a-b", "c", "r") == CheckName("a", "b-c", "r") || CheckName("a", "b", "r1") == CheckName("a", "b", "r2") {
		t.Error("two Jobs have one name")
	}
	if got := CheckName(strings.Repeat("x", 63), strings.Repeat("y", 40), "r"); len(got) > 57 || !label.MatchString(got) {
		t.Errorf("%q must be a label of at most 57 bytes", got)
	}
}

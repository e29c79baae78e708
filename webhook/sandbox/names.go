package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxName is the longest sandbox name, in bytes: the preview host, the ConfigMap's name and the fork's name stay
// readable.
const MaxName = 40

// maxForkName leaves room in a 63-byte pod name (RFC 1123 label, used as host name) for what the Deployment and
// ReplicaSet controllers append: "-" and up to 10 bytes of template hash, "-" and 5 random bytes.
const maxForkName = 63 - 11 - 6

// maxLabelValue is the longest label value that Kubernetes accepts, in bytes.
const maxLabelValue = 63

// maxObjectName is the longest name of most objects, in bytes (RFC 1123 subdomain).
const maxObjectName = 253

// MaxKey is the longest routing key, in bytes.
const MaxKey = 63

// NewKey returns a random routing key of 100 bits, lowercase base32.
func NewKey() string { return strings.ToLower(rand.Text())[:20] }

// NewName returns a random name for a sandbox without one.
func NewName() string { return "sb-" + strings.ToLower(rand.Text())[:6] }

// ValidateName checks a sandbox's name: an RFC 1123 label of at most MaxName bytes.
func ValidateName(name string) error {
	switch {
	case name == "":
		return errors.New("must not be empty")
	case len(name) > MaxName:
		return fmt.Errorf("must be at most %d characters long, is %d", MaxName, len(name))
	case !all(name, nameByte):
		return errors.New("must consist of lowercase letters, digits and '-'")
	case name[0] == '-' || name[len(name)-1] == '-':
		return errors.New("must begin and end with a letter or digit")
	}
	return nil
}

// ValidateKey checks a routing key: lowercase letters, digits, '-', '_' and '.', at most MaxKey bytes. So it needs no
// escaping in a header (RFC 9110), in baggage (W3C Baggage), in tracestate (W3C Trace Context) or in a label value.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return errors.New("must not be empty")
	case len(key) > MaxKey:
		return fmt.Errorf("must be at most %d characters long, is %d", MaxKey, len(key))
	case !all(key, keyByte):
		return errors.New("must consist of lowercase letters, digits, '-', '_' and '.'")
	case !alnum(key[0]) || !alnum(key[len(key)-1]):
		return errors.New("must begin and end with a letter or digit")
	}
	return nil
}

// ConfigMapName returns the name of the ConfigMap that is the sandbox.
func ConfigMapName(sandbox string) string { return "sandbox-" + sandbox }

// RunName returns the name of the ConfigMap of an experiment. The dot distinguishes it from that of a sandbox named
// "run-ID".
func RunName(id string) string { return "sandbox-run." + id }

// RunSuitesName returns the name of the ConfigMap with the suites of an experiment that runs in the cluster.
func RunSuitesName(id string) string { return RunName(id) + ".suites" }

// RunJobName returns the name of the Job that runs an experiment in the cluster. No check's Job has such a name: theirs
// end in a hash.
func RunJobName(id string) string { return "sandbox-run-" + id }

// CheckName returns the name of the Job that runs a check of a sandbox in an experiment. It is unique where joining the
// three by dashes is not. It leaves room for what the Job controller appends for pods: "-" and 5 random bytes.
func CheckName(check, sandbox, run string) string {
	return hashed(strings.ReplaceAll(check, ".", "-")+"-"+sandbox, 63-6, run+"\x00"+check)
}

// ShareName returns the name of the ConfigMap of a share; id distinguishes several. No sandbox's own ConfigMap has a
// dot in its name.
func ShareName(sandbox, id string) string { return ConfigMapName(sandbox) + ".share-" + id }

// WorkloadLabel returns the value of LabelWorkload for a baseline: "KIND.NAME" with the kind in lower case. If that is
// too long for a label value, a hash of it replaces its end.
func WorkloadLabel(kind, name string) string {
	return LabelOf(WorkloadName(kind, name))
}

// WorkloadName returns "KIND.NAME", the kind in lower case, from which WorkloadLabel makes a label.
func WorkloadName(kind, name string) string { return strings.ToLower(kind) + "." + name }

// FormatWorkloads formats the value of AnnotationWorkloads: sorted names as returned by WorkloadName.
func FormatWorkloads(names []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ",")
}

// ParseWorkloads parses the value of AnnotationWorkloads.
func ParseWorkloads(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(name string) bool { return name == "" })
}

// LabelOf returns the WorkloadLabel of a name that WorkloadName returned.
func LabelOf(name string) string { return cut(name, maxLabelValue, "") }

// ForkName returns the name of the fork's Deployment: "BASELINE-SANDBOX". If it is too long for the names of pods, a
// hash of it replaces its end. Two baselines may get the same name ("a" in "b-c", "a-b" in "c"): if the name is taken,
// the caller uses ForkNameHashed.
func ForkName(workload, baseline, sandbox string) string {
	return cut(strings.ReplaceAll(baseline, ".", "-")+"-"+sandbox, maxForkName, workload)
}

// ForkNameHashed returns the name to use if another object has the ForkName.
func ForkNameHashed(workload, baseline, sandbox string) string {
	return hashed(strings.ReplaceAll(baseline, ".", "-")+"-"+sandbox, maxForkName, workload)
}

// PolicyName returns the name of a NetworkPolicy that `route` adds for a baseline; suffix distinguishes several.
func PolicyName(kind, name, suffix string) string {
	s := "sandbox-route-" + strings.ToLower(kind) + "-" + name
	if suffix != "" {
		s += "-" + suffix
	}
	return cut(s, maxObjectName, "")
}

// ForkPolicyName returns the name of a NetworkPolicy of a fork, by the name of its Deployment. An empty selector means
// the policy of its own pods; otherwise it is the policy of the pods that selector, in any format, selects.
func ForkPolicyName(fork, selector string) string {
	s := "sandbox-fork-" + fork
	if selector == "" {
		return s
	}
	return hashed(s, maxObjectName, selector)
}

// maxAnnotationName is the longest name of an annotation after its prefix, in bytes.
const maxAnnotationName = 63

// InheritedAnnotation returns the name of the annotation of a fork's pods that holds a label or annotation of the
// baseline which they lack. field is "labels" or "annotations"; an empty key means all of them.
func InheritedAnnotation(field, key string) string {
	if key == "" {
		return Prefix + "inherited-" + field
	}
	return Prefix + hashed("inherited-"+field+"."+strings.ReplaceAll(key, "/", "."), maxAnnotationName, key)
}

// CutName returns the name of an object as a label of at most limit bytes: if it is longer, a hash replaces its end.
func CutName(name string, limit int) string {
	return cut(strings.ReplaceAll(name, ".", "-"), limit, "")
}

func cut(s string, limit int, salt string) string {
	if len(s) <= limit {
		return s
	}
	return hashed(s, limit, salt)
}

// hashed returns s, cut if necessary, and a hash of salt and all of s, in at most limit bytes.
func hashed(s string, limit int, salt string) string {
	sum := sha256.Sum256([]byte(salt + "\x00" + s))
	h := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5])) // 40 bits: no padding
	keep := min(len(s), limit-len(h)-1)
	return strings.TrimRight(s[:keep], "-._") + "-" + h
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func alnum(b byte) bool    { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' }
func nameByte(b byte) bool { return alnum(b) || b == '-' }
func keyByte(b byte) bool  { return alnum(b) || b == '-' || b == '_' || b == '.' }

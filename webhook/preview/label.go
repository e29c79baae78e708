package preview

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// maxLabel is the longest label of a DNS name, in bytes: RFC 1035, section 2.3.4.
const maxLabel = 63

// Label returns the first label of a gateway's preview host: SERVICE--SANDBOX--NAMESPACE, or Alias where that would be too long,
// could be read in two ways, has a service of another namespace than the sandbox's (SERVICE.NAMESPACE), or begins as the labels of internationalised names do ("xn--", RFC 5890).
func Label(service, sandbox, namespace string) string {
	label := service + "--" + sandbox + "--" + namespace
	if len(label) > maxLabel || strings.Contains(label, ".") || strings.Count(label, "--") != 2 || strings.Contains(label, "---") || strings.HasPrefix(label, "xn--") {
		return Alias(service, sandbox, namespace)
	}
	return label
}

// Alias returns a label that stands for a preview whose names don't fit into one: as much of them as is readable, and 80 bits
// of a hash of all. No alias holds "--", so none can be taken for a label of three names.
func Alias(service, sandbox, namespace string) string {
	sum := sha256.Sum256([]byte(service + "\x00" + sandbox + "\x00" + namespace))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
	readable := strings.ReplaceAll(service, ".", "-") + "-" + sandbox
	for strings.Contains(readable, "--") {
		readable = strings.ReplaceAll(readable, "--", "-")
	}
	readable = readable[:min(len(readable), maxLabel-len(hash)-1)]
	return strings.Trim(readable, "-") + "-" + hash
}

// ParseLabel reads a label of three names. False: it is none; it may be an Alias, which can only be found by making those of all
// previews there are.
func ParseLabel(label string) (service, sandbox, namespace string, ok bool) {
	parts := strings.Split(label, "--")
	if len(parts) != 3 || Label(parts[0], parts[1], parts[2]) != label || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}

package preview

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// maxLabel is the longest label of a DNS name, in bytes: RFC 1035, section 2.3.4.
const maxLabel = 63

// Label returns the first label of a gateway's preview host: SERVICE--SANDBOX--NAMESPACE. It returns the Alias if that
// would be too long or ambiguous, if the service is in another namespace than the sandbox (SERVICE.NAMESPACE), or if it
// would begin like labels of internationalised names ("xn--", RFC 5890).
func Label(service, sandbox, namespace string) string {
	label := service + "--" + sandbox + "--" + namespace
	if len(label) > maxLabel || strings.Contains(label, ".") || strings.Count(label, "--") != 2 || strings.Contains(label, "---") || strings.HasPrefix(label, "xn--") {
		return Alias(service, sandbox, namespace)
	}
	return label
}

// Alias returns a label for a preview whose names do not fit into one: a readable part of them, and 80 bits of a hash
// of all. No alias contains "--", so none can be mistaken for a label of three names.
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

// ParseLabel parses a label of three names. False: it is not one. It may be an Alias, which can only be found by
// computing those of all existing previews.
func ParseLabel(label string) (service, sandbox, namespace string, ok bool) {
	parts := strings.Split(label, "--")
	if len(parts) != 3 || Label(parts[0], parts[1], parts[2]) != label || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}

// Package share is how a person or program is let into a sandbox by the gateway: a random token, of which the cluster holds only
// the hash, the preview it is for, and when it ends. The plugin writes shares with the rights of whoever shares; the gateway
// reads them. It is pure, and imports nothing of Kubernetes.
package share

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Names by which a token travels.
const (
	// Parameter of a link's query: the gateway turns it into the cookie, and redirects to the URL without it.
	Parameter = "sandbox-token"
	// Cookie of a browser that came by such a link. The prefix has browsers hold it to the one host, and to TLS: RFC 6265bis,
	// section 4.1.3.2.
	Cookie = "__Host-sandbox"
	// Scheme of the header Authorization, for programs.
	Scheme = "Bearer"
)

// Keys of a share's ConfigMap.
const (
	DataHash      = "hash"       // as Hash makes it
	DataService   = "service"    // SERVICE, or SERVICE.NAMESPACE where it is not of the sandbox's namespace
	DataExpires   = "expires"    // RFC 3339
	DataCreatedBy = "created-by" // user name of who shared
)

// prefix lets scanners for leaked secrets, and the gateway, tell a token from others'.
const prefix = "sandbox_"

// tokenLength is that of a token without prefix: two texts of crypto/rand, each of at least 128 bits.
const tokenLength = 52

// NewToken returns a random token of at least 256 bits.
func NewToken() string { return prefix + strings.ToLower(rand.Text()+rand.Text()) }

// IsToken says whether s has the form of a token.
func IsToken(s string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) == tokenLength && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// Hash returns what is kept of a token: its SHA-256, in hexadecimal. A token is random and long, so nobody finds it by its hash.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// A Share lets whoever has a token enter a sandbox by one Service.
type Share struct {
	Hash      string
	Service   string
	Expires   time.Time
	CreatedBy string
}

// Data returns the ConfigMap's.
func (s Share) Data() map[string]string {
	data := map[string]string{DataHash: s.Hash, DataService: s.Service, DataExpires: s.Expires.UTC().Format(time.RFC3339)}
	if s.CreatedBy != "" {
		data[DataCreatedBy] = s.CreatedBy
	}
	return data
}

// Parse reads a ConfigMap's data. One that does not say for what service and until when is no share: nobody is let in by it.
func Parse(data map[string]string) (Share, error) {
	s := Share{Hash: data[DataHash], Service: data[DataService], CreatedBy: data[DataCreatedBy]}
	if b, err := hex.DecodeString(s.Hash); err != nil || len(b) != sha256.Size || s.Hash != strings.ToLower(s.Hash) {
		return Share{}, fmt.Errorf("data.%s is no SHA-256 in hexadecimal", DataHash)
	}
	if s.Service == "" {
		return Share{}, fmt.Errorf("data.%s is missing", DataService)
	}
	var err error
	if s.Expires, err = time.Parse(time.RFC3339, data[DataExpires]); err != nil {
		return Share{}, fmt.Errorf("data.%s is not a time (RFC 3339)", DataExpires)
	}
	return s, nil
}

// Reasons why a token does not let in.
var (
	ErrUnknown = errors.New("the link or token is not valid here, or was revoked")
	ErrExpired = errors.New("the link or token has expired")
)

// Find returns the share of a token for a service, of those there are of a sandbox. The error is ErrUnknown, also where the token is
// for another service, or ErrExpired.
func Find(shares []Share, token, service string, now time.Time) (Share, error) {
	if !IsToken(token) {
		return Share{}, ErrUnknown
	}
	hash := Hash(token)
	for _, s := range shares {
		if subtle.ConstantTimeCompare([]byte(s.Hash), []byte(hash)) != 1 || s.Service != service {
			continue
		}
		if !now.Before(s.Expires) {
			return Share{}, ErrExpired
		}
		return s, nil
	}
	return Share{}, ErrUnknown
}

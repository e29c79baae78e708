// Package share defines how the gateway admits a person or program to a sandbox: by a random token. The cluster holds
// only its hash, the preview it is for, and its expiry. The plugin writes shares with the rights of the user who
// shares; the gateway reads them. It is pure, and imports nothing of Kubernetes.
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

// Names that carry a token.
const (
	// Parameter is in a link's query: the gateway turns it into the cookie, and redirects to the URL without it.
	Parameter = "sandbox-token"
	// Cookie is set in a browser that used such a link. The prefix restricts it to one host, and to TLS: RFC 6265bis,
	// section 4.1.3.2.
	Cookie = "__Host-sandbox"
	// Scheme is that of the header Authorization, for programs.
	Scheme = "Bearer"
)

// Keys of a share's ConfigMap.
const (
	DataHash      = "hash"       // as Hash makes it
	DataService   = "service"    // SERVICE, or SERVICE.NAMESPACE if it is in another namespace than the sandbox
	DataExpires   = "expires"    // RFC 3339
	DataCreatedBy = "created-by" // name of the user who shared
)

// prefix identifies a token, for the gateway and for scanners of leaked secrets.
const prefix = "sandbox_"

// tokenLength is that of a token without prefix: two texts of crypto/rand, each of at least 128 bits.
const tokenLength = 52

// NewToken returns a random token of at least 256 bits.
func NewToken() string { return prefix + strings.ToLower(rand.Text()+rand.Text()) }

// IsToken reports whether s has the form of a token.
func IsToken(s string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) == tokenLength && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// Hash returns what is stored of a token: its SHA-256, in hexadecimal. A token is random and long, so its hash does not
// reveal it.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// A Share lets the holder of a token enter a sandbox through one Service.
type Share struct {
	Hash      string
	Service   string
	Expires   time.Time
	CreatedBy string
}

// Data returns the share as data of a ConfigMap.
func (s Share) Data() map[string]string {
	data := map[string]string{DataHash: s.Hash, DataService: s.Service, DataExpires: s.Expires.UTC().Format(time.RFC3339)}
	if s.CreatedBy != "" {
		data[DataCreatedBy] = s.CreatedBy
	}
	return data
}

// Parse parses a ConfigMap's data. Without a service and an expiry it is not a share, and admits nobody.
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

// Errors of a token that admits nobody.
var (
	ErrUnknown = errors.New("the link or token is not valid here, or was revoked")
	ErrExpired = errors.New("the link or token has expired")
)

// Find returns the share of a token for a service, among those of a sandbox. The error is ErrUnknown, also if the token
// is for another service, or ErrExpired.
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

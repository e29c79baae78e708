package share

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	token, other := NewToken(), NewToken()
	shares := []Share{
		{Hash: Hash(other), Service: "api", Expires: now.Add(time.Hour)},
		{Hash: Hash(token), Service: "web", Expires: now.Add(time.Hour)},
	}
	flipped := "a"
	if token[len(token)-1] == 'a' {
		flipped = "b"
	}
	for name, test := range map[string]struct {
		token, service string
		at             time.Time
		want           error
	}{
		"right":               {token, "web", now, nil},
		"a moment before end": {token, "web", now.Add(time.Hour - 1), nil},
		"at the end":          {token, "web", now.Add(time.Hour), ErrExpired},
		"another service":     {token, "api", now, ErrUnknown},
		"another's token":     {other, "web", now, ErrUnknown},
		"nobody's":            {NewToken(), "web", now, ErrUnknown},
		"tampered":            {token[:len(token)-1] + flipped, "web", now, ErrUnknown},
		"cut":                 {token[:len(token)-1], "web", now, ErrUnknown},
		"upper case":          {strings.ToUpper(token), "web", now, ErrUnknown},
		"the hash":            {Hash(token), "web", now, ErrUnknown},
		"empty":               {"", "web", now, ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Find(shares, test.token, test.service, test.at)
			if !errors.Is(err, test.want) || err == nil && got != shares[1] {
				t.Errorf("got %+v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestNewToken(t *testing.T) {
	if a, b := NewToken(), NewToken(); a == b || !IsToken(a) || !IsToken(b) {
		t.Errorf("%q, %q", a, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Hash("x"), "web", "2026-01-02T03:04:05Z", "me")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, hash, service, expires, by string) {
		s, err := Parse(map[string]string{DataHash: hash, DataService: service, DataExpires: expires, DataCreatedBy: by})
		if err != nil {
			if s != (Share{}) {
				t.Errorf("a share in spite of %v: %+v", err, s)
			}
			return
		}
		if y := s.Expires.UTC().Year(); y < 0 || y > 9999 {
			return // such a time has no RFC 3339
		}
		again, err := Parse(s.Data())
		if err != nil || !maps.Equal(again.Data(), s.Data()) {
			t.Errorf("%+v is read as %+v, %v", s, again, err)
		}
	})
}

package certs

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const day = 24 * time.Hour

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func mustAuthority(t interface{ Fatal(...any) }, now time.Time, validity time.Duration) authority {
	a, err := newAuthority(now, validity)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthorities_RotateByTheirOwnDates(t *testing.T) {
	const year = 360 * day
	now := epoch
	a := mustAuthority(t, now, year)
	all := authorities{a}
	at := func(days int) time.Time { return epoch.Add(time.Duration(days) * day) }
	// Backdating moves these by minutes, so look a day before and after.
	if all.due(at(239)) || !all.due(at(241)) {
		t.Error("a successor is not due at two thirds of the life")
	}
	b := mustAuthority(t, at(240), year)
	all = append(all, b)
	if all.due(at(241)) {
		t.Error("another one is due right after")
	}
	for _, tt := range []struct {
		day  int
		want authority
	}{{0, a}, {241, a}, {329, a}, {331, b}, {359, b}, {361, b}} {
		if got := all.signer(at(tt.day)); got.cert != tt.want.cert {
			t.Errorf("on day %d, %s signs, want %s", tt.day, got.cert.Subject, tt.want.cert.Subject)
		}
	}
	if n := len(all.valid(at(359))); n != 2 {
		t.Errorf("on day 359, %d are valid, want 2", n)
	}
	if n := len(all.valid(at(361))); n != 1 {
		t.Errorf("on day 361, %d are valid, want 1", n)
	}
}

// Whoever changes the validity gets one authority of the new kind, not one at every step.
func TestAuthorities_OneOfAnotherValidityIsEnough(t *testing.T) {
	for _, validity := range [][2]time.Duration{{time.Minute, 300 * day}, {300 * day, time.Minute}} {
		old := mustAuthority(t, epoch, validity[0])
		now := epoch.Add(validity[0] * 9 / 10)
		if !(authorities{old}).due(now) {
			t.Fatal("nothing is due")
		}
		b, err := authorities{old, mustAuthority(t, now, validity[1])}.encode()
		if err != nil {
			t.Fatal(err)
		}
		all, err := decodeAuthorities(b)
		if err != nil {
			t.Fatal(err)
		}
		if all.due(now.Add(time.Second)) {
			t.Errorf("from %s to %s, another one is due at once", validity[0], validity[1])
		}
	}
}

func TestAuthorities_TheOnlyOneSignsToItsEnd(t *testing.T) {
	a := mustAuthority(t, epoch, 30*day)
	if got := (authorities{a}).signer(epoch.Add(30*day - time.Minute)); got.cert != a.cert {
		t.Error("nobody signs")
	}
}

func TestLeaf_IsVerifiedByItsAuthorityAlone(t *testing.T) {
	a, b := mustAuthority(t, epoch, day), mustAuthority(t, epoch, day)
	leaf, err := a.leaf(epoch.Add(20*time.Hour), day, []string{"hook.ns.svc"})
	if err != nil {
		t.Fatal(err)
	}
	now := epoch.Add(21 * time.Hour)
	if err := verify(leaf, []*x509.Certificate{b.cert, a.cert}, now, "hook.ns.svc"); err != nil {
		t.Error(err)
	}
	if verify(leaf, []*x509.Certificate{b.cert}, now, "hook.ns.svc") == nil {
		t.Error("verified by another authority")
	}
	if verify(leaf, []*x509.Certificate{a.cert}, now, "hook.other.svc") == nil {
		t.Error("verified for another name")
	}
	if leaf.Leaf.NotAfter.After(a.cert.NotAfter) {
		t.Error("the leaf outlives its authority")
	}
	// A clock that is behind by less than the backdating.
	if err := verify(leaf, []*x509.Certificate{a.cert}, epoch.Add(20*time.Hour-4*time.Minute), "hook.ns.svc"); err != nil {
		t.Error(err)
	}
}

func TestAuthorities_SurviveWritingAndReading(t *testing.T) {
	all := authorities{mustAuthority(t, epoch, day), mustAuthority(t, epoch.Add(time.Hour), day)}
	b, err := all.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeAuthorities(b)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d authorities, %v", len(got), err)
	}
	for i := range got {
		if !got[i].cert.Equal(all[i].cert) {
			t.Errorf("authority %d is another one", i)
		}
		if _, err := got[i].leaf(epoch, day, []string{"x"}); err != nil {
			t.Errorf("authority %d can't sign: %v", i, err)
		}
	}
}

func TestDecodeAuthorities_RefusesWhatIsNotOurs(t *testing.T) {
	all := authorities{mustAuthority(t, epoch, day), mustAuthority(t, epoch, day)}
	good, err := all.encode()
	if err != nil {
		t.Fatal(err)
	}
	const end = "-----END CERTIFICATE-----\n"
	i := bytes.Index(good, []byte(end)) + len(end)
	j := bytes.Index(good[i:], []byte("-----BEGIN CERTIFICATE")) + i
	for name, bad := range map[string]string{
		"certificate without key": string(good[:i]),
		"key without certificate": string(good[i:j]),
		"two keys":                string(good[:j]) + string(good[i:j]),
		"keys exchanged":          string(good[:i]) + string(good[j:][i:]) + string(good[j:][:i]) + string(good[i:j]),
		"garbled certificate":     "-----BEGIN CERTIFICATE-----\nAAAA\n" + end,
		"garbled key":             string(good[:i]) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		if got, err := decodeAuthorities([]byte(bad)); err == nil {
			t.Errorf("%s: got %d authorities, want an error", name, len(got))
		}
	}
	if got, err := decodeAuthorities([]byte("no PEM at all")); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzDecodeAuthorities(f *testing.F) {
	b, err := authorities{mustAuthority(f, epoch, day)}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := decodeAuthorities(data)
		if err != nil {
			return
		}
		for _, a := range all {
			if _, err := a.leaf(epoch, day, []string{"x"}); err != nil && strings.Contains(err.Error(), "nil") {
				t.Error(err)
			}
		}
	})
}

// Whatever a replica finds published, what it publishes itself has all of its own certificates, nothing expired,
// nothing twice, and is found as it is by the next replica that has the same.
func TestMerge_AddsOwnAndAgrees(t *testing.T) {
	var certs []*x509.Certificate
	for i := range 6 {
		certs = append(certs, mustAuthority(t, epoch.Add(time.Duration(i)*time.Hour), time.Duration(i+1)*day).cert)
	}
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string) []*x509.Certificate {
			var s []*x509.Certificate
			for range rapid.IntRange(0, 6).Draw(t, name) {
				s = append(s, certs[rapid.IntRange(0, len(certs)-1).Draw(t, "certificate")])
			}
			return s
		}
		distinct := func(s []*x509.Certificate) []*x509.Certificate {
			seen := map[fingerprint]bool{}
			var d []*x509.Certificate
			for _, c := range s {
				if !seen[identify(c)] {
					d = append(d, c)
				}
				seen[identify(c)] = true
			}
			return d
		}
		now := epoch.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "hours")) * time.Hour)
		own, other := some("own"), some("other")
		var mine, theirs ledger
		merged := mine.merge(some("existing"), own, now)
		if len(distinct(merged)) != len(merged) {
			t.Fatal("a certificate comes twice")
		}
		for _, c := range own {
			if has(merged, c) == now.After(c.NotAfter) {
				t.Fatal("an own certificate that is valid is missing, or one that is not is there")
			}
		}
		again := theirs.merge(merged, other, now)
		if back := mine.merge(again, own, now); !bytes.Equal(encodeCertificates(back), encodeCertificates(again)) {
			t.Fatal("two replicas correct each other without end")
		}
		// Once the grace is over, what only others had is gone.
		late := now.Add(foreignGrace)
		final := mine.merge(again, own, late)
		for _, c := range final {
			if !has(own, c) {
				t.Fatal("a certificate that nobody of ours has stays for ever")
			}
		}
	})
}

func has(s []*x509.Certificate, c *x509.Certificate) bool {
	for _, d := range s {
		if d.Equal(c) {
			return true
		}
	}
	return false
}

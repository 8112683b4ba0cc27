package pdftext

import (
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// standard is where Adobe's StandardEncoding differs from Windows-1252.
var standard = map[int]string{
	0x27: "’", 0x60: "‘", 0xa4: "⁄", 0xa6: "ƒ", 0xa8: "¤", 0xa9: "'", 0xaa: "“", 0xac: "‹", 0xad: "›", 0xae: "fi", 0xaf: "fl",
	0xb1: "–", 0xb2: "†", 0xb3: "‡", 0xb4: "·", 0xb7: "•", 0xb8: "‚", 0xb9: "„", 0xba: "”", 0xbc: "…", 0xbd: "‰",
	0xc1: "`", 0xc2: "´", 0xc3: "ˆ", 0xc4: "˜", 0xc5: "¯", 0xc6: "˘", 0xc7: "˙", 0xc8: "¨", 0xca: "˚", 0xcb: "¸", 0xcd: "˝", 0xce: "˛", 0xcf: "ˇ",
	0xd0: "—", 0xe1: "Æ", 0xe3: "ª", 0xe8: "Ł", 0xe9: "Ø", 0xea: "Œ", 0xeb: "º", 0xf1: "æ", 0xf5: "ı", 0xf8: "ł", 0xf9: "ø", 0xfa: "œ", 0xfb: "ß",
}

// named are the names of glyphs that glyphText cannot work out. They are those of
// Adobe's list that fonts for Latin text have.
const named = "space= exclam=! quotedbl=\" numbersign=# dollar=$ percent=% ampersand=& quotesingle=' quoteright=’ quoteleft=‘ parenleft=( parenright=) " +
	"asterisk=* plus=+ comma=, hyphen=- minus=− period=. slash=/ zero=0 one=1 two=2 three=3 four=4 five=5 six=6 seven=7 eight=8 nine=9 " +
	"colon=: semicolon=; less=< equal== greater=> question=? at=@ bracketleft=[ backslash=\\ bracketright=] asciicircum=^ underscore=_ " +
	"grave=` braceleft={ bar=| braceright=} asciitilde=~ exclamdown=¡ cent=¢ sterling=£ currency=¤ yen=¥ brokenbar=¦ section=§ dieresis=¨ " +
	"copyright=© ordfeminine=ª guillemotleft=« guillemotright=» logicalnot=¬ registered=® macron=¯ degree=° plusminus=± twosuperior=² threesuperior=³ " +
	"acute=´ mu=µ paragraph=¶ periodcentered=· middot=· cedilla=¸ onesuperior=¹ ordmasculine=º onequarter=¼ onehalf=½ threequarters=¾ questiondown=¿ " +
	"multiply=× divide=÷ AE=Æ ae=æ OE=Œ oe=œ Oslash=Ø oslash=ø Eth=Ð eth=ð Thorn=Þ thorn=þ germandbls=ß Lslash=Ł lslash=ł Dcroat=Đ dcroat=đ dotlessi=ı " +
	"Hbar=Ħ hbar=ħ fi=fi fl=fl ff=ff ffi=ffi ffl=ffl f_i=fi f_l=fl f_f=ff f_f_i=ffi f_f_l=ffl " +
	"endash=– emdash=— bullet=• ellipsis=… dagger=† daggerdbl=‡ perthousand=‰ quotesinglbase=‚ quotedblbase=„ quotedblleft=“ quotedblright=” " +
	"guilsinglleft=‹ guilsinglright=› florin=ƒ fraction=⁄ trademark=™ Euro=€ euro=€ nbspace= nonbreakingspace= sfthyphen=- softhyphen=- " +
	"circumflex=ˆ tilde=˜ breve=˘ dotaccent=˙ ring=˚ ogonek=˛ caron=ˇ hungarumlaut=˝ " +
	"Alpha=Α Beta=Β Gamma=Γ Delta=Δ Epsilon=Ε Zeta=Ζ Eta=Η Theta=Θ Iota=Ι Kappa=Κ Lambda=Λ Mu=Μ Nu=Ν Xi=Ξ Omicron=Ο Pi=Π Rho=Ρ Sigma=Σ Tau=Τ Upsilon=Υ Phi=Φ Chi=Χ Psi=Ψ Omega=Ω " +
	"alpha=α beta=β gamma=γ delta=δ epsilon=ε zeta=ζ eta=η theta=θ iota=ι kappa=κ lambda=λ nu=ν xi=ξ omicron=ο pi=π rho=ρ sigma=σ tau=τ upsilon=υ phi=φ chi=χ psi=ψ omega=ω " +
	"lessequal=≤ greaterequal=≥ notequal=≠ infinity=∞ approxequal=≈ summation=∑ product=∏ radical=√ integral=∫ partialdiff=∂ lozenge=◊ arrowright=→ arrowleft=← checkmark=✓ "

// accents are the ends of names of letters with an accent: eacute is e and acute.
const accents = "grave=\u0300 acute=\u0301 circumflex=\u0302 tilde=\u0303 macron=\u0304 breve=\u0306 dotaccent=\u0307 dieresis=\u0308 " +
	"ring=\u030a hungarumlaut=\u030b caron=\u030c cedilla=\u0327 commaaccent=\u0326 ogonek=\u0328 "

// look returns the value of a key in a list as they are above.
func look(list, key string) (string, bool) {
	_, after, ok := strings.Cut(" "+list, " "+key+"=")
	if !ok {
		return "", false
	}
	if value, _, _ := strings.Cut(after, " "); value != "" {
		return value, true
	}
	return " ", true
}

// glyphText returns what the glyph of a name shows.
func glyphText(glyph string) string {
	glyph, _, _ = strings.Cut(glyph, ".") // one.oldstyle, a.sc
	if len(glyph) == 1 {
		return glyph
	}
	if s, ok := look(named, glyph); ok {
		return s
	}
	if s, ok := hexText(glyph); ok {
		return s
	}
	if len(glyph) > 1 {
		if mark, ok := look(accents, glyph[1:]); ok {
			return norm.NFC.String(glyph[:1] + mark)
		}
	}
	return unknown
}

// hexText reads the names uni20AC and u1F600.
func hexText(glyph string) (string, bool) {
	digits, ok := strings.CutPrefix(glyph, "uni")
	if !ok {
		digits, ok = strings.CutPrefix(glyph, "u")
	}
	if !ok || len(digits) < 4 || len(digits) > 6 {
		return "", false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return "", false
	}
	return string(rune(n)), true
}

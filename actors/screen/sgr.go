package screen

// apply changes the pen as SGR says.
func (p *pen) apply(ps *params) {
	for i := 0; i < ps.count; i++ {
		switch n := ps.values[i]; {
		case n == 38 || n == 48 || n == 58:
			i += p.color(ps, i)
		case n == 4:
			style := 1
			if sub := ps.sub(i); len(sub) > 0 {
				style = sub[0]
			}
			p.underline(style)
		case n >= 30 && n <= 37:
			p.foreground(palette16 | color(n-30)) //nolint:gosec // 0 to 7, as below
		case n >= 40 && n <= 47:
			p.background(palette16 | color(n-40)) //nolint:gosec // see above
		case n >= 90 && n <= 97:
			p.foreground(palette16 | color(n-82)) //nolint:gosec // see above
		case n >= 100 && n <= 107:
			p.background(palette16 | color(n-92)) //nolint:gosec // see above
		default:
			p.attribute(n)
		}
	}
}

func (p *pen) foreground(c color) { p.fg = p.fg&^colorBits | c }
func (p *pen) background(c color) { p.bg = p.bg&^colorBits | c }

// underline sets how is underlined: 0 not at all, 1 to 5 the style.
func (p *pen) underline(style int) {
	p.fg &^= underlined
	p.line &= colorBits
	if style == 0 {
		return
	}
	p.fg |= underlined
	if style > 1 && style <= 5 {
		p.line |= uint32(style-1) << lineShift //nolint:gosec // 1 to 4
	}
}

// attribute sets or resets what has no further parameter.
func (p *pen) attribute(n int) {
	switch n {
	case 0:
		*p = pen{}
	case 1:
		p.fg |= bold
	case 2:
		p.bg |= faint
	case 3:
		p.bg |= italic
	case 5:
		p.fg |= blink
	case 7:
		p.fg |= inverse
	case 8:
		p.fg |= hidden
	case 9:
		p.fg |= struck
	case 21:
		p.underline(2)
	case 22:
		p.fg &^= bold
		p.bg &^= faint
	case 23:
		p.bg &^= italic
	case 24:
		p.underline(0)
	case 25:
		p.fg &^= blink
	case 27:
		p.fg &^= inverse
	case 28:
		p.fg &^= hidden
	case 29:
		p.fg &^= struck
	case 39:
		p.foreground(0)
	case 49:
		p.background(0)
	case 53:
		p.bg |= overlined
	case 55:
		p.bg &^= overlined
	case 59:
		p.line &^= colorBits
	}
}

// color sets a color of 256 or a direct one, for the foreground, the background or underlines. It returns how
// many parameters it took beside the first. Three forms are in use: 38;5;1 and 38;2;1;2;3, where the values
// are parameters; 38:5:1 and 38:2::1:2:3, where they are subparameters and a color space comes before
// them; and forms between, as 38;2:1:2:3.
func (p *pen) color(ps *params, at int) int {
	v := [6]int{2: -1} // the parameter, its kind, the color space, and the values
	space, advance := 0, 0
	for {
		v[advance+space] = ps.values[at+advance]
		if subs := ps.sub(at + advance); len(subs) > 0 {
			for i, sub := range subs {
				if v[1] == 5 {
					space = 1
				}
				if i+advance+1+space >= len(v) {
					break
				}
				v[advance+i+1+space] = sub
			}
			break
		}
		if v[1] == 5 && advance+space >= 2 || v[1] == 2 && advance+space >= 5 {
			break
		}
		if v[1] != 0 {
			space = 1
		}
		if advance++; advance+at >= ps.count || advance+space >= len(v) {
			break
		}
	}
	var c color
	switch v[1] {
	case 2:
		c = direct | octet(v[3])<<16 | octet(v[4])<<8 | octet(v[5])
	case 5:
		c = palette256 | octet(v[3])
	default:
		return advance
	}
	switch v[0] {
	case 38:
		p.foreground(c)
	case 48:
		p.background(c)
	case 58:
		p.line = p.line&^colorBits | c
	}
	return advance
}

func octet(n int) color { return color(max(n, 0) & 0xff) } //nolint:gosec // 0 to 255

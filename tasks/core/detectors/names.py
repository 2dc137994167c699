"""Given names that are common where English or Indonesian is spoken: evidence that a column holds people.

From the public lists of the US Social Security Administration and of Indonesian civil registries' reports, cut to the
names that are hardly ever anything else.
"""

from __future__ import annotations

_GIVEN = """
    aaron abigail adam adrian agnes agung agus ahmad aisyah alan albert alexander alexandra alice alicia allison
    amanda amelia amy andi andrea andrew andri angela anita ann anna anne anthony anwar ari arief arif arthur asep
    ashley ayu bagus bambang barbara benjamin beth betty beverly bobby bradley brandon brenda brian bruce bryan budi
    caleb carl carol caroline carolyn catherine charles cheryl christian christina christine christopher cindy
    cynthia dani daniel danielle david deborah denise dennis dewi dian diana diane dimas donald donna dorothy
    douglas dwi dylan edward eko elizabeth emily emma endang eric erik eugene evelyn fajar fatimah ferry fitri
    frances frank fransiska gabriel gary george gerald gloria gregory hannah hari harold heather helen hendra henry
    heru imam indah indra intan irfan irwan isabella jack jacob jacqueline james jane janet janice jason jean
    jeffrey jennifer jeremy jerry jesse jessica joan joe johan john johnny jonathan jose joseph joshua joyce juan
    judith judy julia julie justin karen kartika katherine kathleen kathryn keith kelly kenneth kevin kimberly
    kristin kyle larry laura lauren lawrence lestari lina linda lisa logan lori louis lukman madison margaret maria
    marie marilyn mark martha mary maya megan melissa michael michelle mohammad muhammad mulyono nabila nancy nathan
    nicholas nicole nina noah novi nugroho nur nurul olivia pamela patricia patrick paul peter philip putra putri
    rachel ralph ratna raymond rebecca rendra retno ricky rina rini rizki rizky robert roger ronald rosa roy rudi
    russell ruth ryan samantha samuel sandra sara sarah sari scott sean sharon shirley siti slamet sophia sri
    stephanie stephen steven sugeng suharto sulastri suparman supriyadi surya susan susanti suwarno syahrul tanto
    taufik teguh teresa terry theresa thomas tiffany timothy titik tri tyler udin umar utami vera victoria vincent
    virginia wahyu walter wati wawan wayan wayne wibowo william wulan yanti yanto yohanes yudi yuli yulia yusuf
    zachary zainal
"""
GIVEN_NAMES = frozenset(_GIVEN.split())
"""In lower case."""

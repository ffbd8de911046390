from gru_xp.reporting.text import number_text


def test_numbers_have_four_significant_digits():
    cases = {29070.4: "29,070", 0.05171: "0.05171", 99999.7: "100,000", 1.0: "1.000", 0.00005: "5e-05", 0.0: "0"}
    for number, text in cases.items():
        assert number_text(number) == text, number
    assert number_text(-1234.5) == "-1,234"
    assert number_text(123456.0, digits=4) == "1.235e+05"

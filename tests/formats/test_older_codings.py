# ruff: noqa: E501, RUF001
"""Texts in codings from before Unicode: read where their letters tell it, else refused."""

import subprocess
import sys

import pytest
from tables import write_table

from edge_train.errors import InputError
from edge_train.formats.tables.coding import coding_of
from edge_train.formats.tables.names import KNOWN
from edge_train.formats.tables.table import open_table

TEXTS = {
    "ru": "Фильм оказался удивительно хорошим: актёры играют искренне, музыка трогает, а концовка "
    "заставляет задуматься. Я смотрел его вместе с семьёй, и даже дети не отвлекались ни на минуту. "
    "Единственный недостаток: слишком длинная вторая часть.",
    "zh": "这部电影出乎意料地好看，演员的表演非常真诚，音乐动人，结尾也让人深思。我和家人一起观看，连孩子们都没有"
    "分心。唯一的缺点是第二部分太长，完全可以剪短一些。总的来说，我会把它推荐给所有喜欢剧情片的朋友，特别是那些喜欢慢"
    "节奏故事的人。导演对细节的把握令人佩服，摄影也很出色，每一个镜头都像一幅画。希望以后还能看到这样的作品，下次我会带"
    "父母一起去电影院再看一遍，相信他们也会喜欢这个温暖的故事，一起笑，一起流泪。",
    "tw": "這部電影出乎意料地好看，演員的表演非常真誠，音樂動人，結尾也讓人深思。我和家人一起觀看，連孩子們都沒有"
    "分心。唯一的缺點是第二部分太長，完全可以剪短一些。總的來說，我會把它推薦給所有喜歡劇情片的朋友，特別是那些喜歡慢"
    "節奏故事的人。導演對細節的把握令人佩服，攝影也很出色，每一個鏡頭都像一幅畫。希望以後還能看到這樣的作品，下次我會帶"
    "父母一起去電影院再看一遍，相信他們也會喜歡這個溫暖的故事，一起笑，一起流淚。",
    "ja": "この映画は思っていたよりずっと良かったです。俳優の演技は誠実で、音楽も心に残り、最後の場面では深く考えさせ"
    "られました。家族と一緒に見ましたが、子どもたちも最後まで夢中でした。欠点を挙げるとすれば、後半が少し長すぎることく"
    "らいです。監督の細かいこだわりが感じられ、映像もとても美しく、どの場面も絵のようでした。次は両親を連れてもう一度映画"
    "館で見たいと思います。きっと気に入ってくれるはずです。友人にもぜひ勧めたいです。",
    "ko": "이 영화는 생각보다 훨씬 좋았습니다. 배우들의 연기는 진실했고 음악도 마음에 남았으며 마지막 장면은 깊은 생각을"
    " 하게 만들었습니다. 가족과 함께 보았는데 아이들도 끝까지 집중했습니다. 단점이라면 후반부가 조금 길다는 것뿐입니다. "
    "감독의 섬세함이 느껴지고 영상도 무척 아름다워서 모든 장면이 그림 같았습니다. 다음에는 부모님을 모시고 극장에서 다시 "
    "보고 싶습니다.",
    "el": "Η ταινία ήταν εκπληκτικά καλή: οι ηθοποιοί παίζουν με ειλικρίνεια, η μουσική συγκινεί και το "
    "τέλος σε βάζει σε σκέψεις. Την είδα με την οικογένειά μου και ούτε τα παιδιά βαρέθηκαν. Το μόνο "
    "μειονέκτημα είναι το πολύ μεγάλο δεύτερο μέρος.",
    "he": "הסרט היה טוב להפתיע: השחקנים משחקים בכנות, המוזיקה נוגעת ללב והסוף גורם לחשוב. ראיתי אותו עם "
    "המשפחה ואפילו הילדים לא השתעממו לרגע. החיסרון היחיד הוא החלק השני הארוך מדי, שאפשר היה לקצר. "
    "הצילום נהדר, כל פריים נראה כמו ציור ממש יפה.",
    "fr": "Le film était étonnamment réussi : les acteurs jouent avec sincérité, la musique émeut et la "
    "fin donne à réfléchir. Je l'ai regardé en famille et même les enfants ne se sont pas ennuyés. Son "
    "seul défaut : une deuxième partie très longue, qu'on aurait pu abréger.",
    "es": "La película resultó sorprendentemente buena: los actores actúan con sinceridad, la música "
    "emociona y el final da que pensar. ¿Qué más se puede pedir? La vi con mi familia y ni los niños se "
    "aburrieron. El único defecto es la segunda parte. ¡Mañana la veré otra vez!",
    "da": "Filmen var overraskende god: skuespillerne spiller ærligt, musikken rører, og slutningen får "
    "en til at tænke. Jeg så den med familien, og selv børnene kedede sig ikke. Den eneste fejl er den "
    "alt for lange anden del, som man kunne have forkortet. Billederne er smukke.",
    "cs": "Film byl překvapivě dobrý: herci hrají upřímně, hudba dojímá a závěr nutí k zamyšlení. Díval "
    "jsem se na něj s rodinou a ani děti se nenudily ani chvíli. Jedinou vadou je příliš dlouhá druhá "
    "část, kterou by šlo zkrátit. Kamera je skvělá, každý záběr vypadá jako obraz.",
    "tr": "Film şaşırtıcı derecede iyiydi: oyuncular içten oynuyor, müzik dokunaklı ve son düşündürüyor. "
    "Ailemle birlikte izledim, çocuklar bile bir an olsun sıkılmadı. Tek kusuru çok uzun olan ikinci "
    "bölüm; kısaltılabilirdi. Görüntüler harika, her çekim bir tablo gibi.",
}
CODINGS = [
    ("ru", "cp1251"),
    ("ru", "koi8_r"),
    ("ru", "iso8859_5"),
    ("zh", "gbk"),
    ("tw", "big5"),
    ("ja", "shift_jis"),
    ("ja", "euc_jp"),
    ("ko", "euc_kr"),
    ("el", "cp1253"),
    ("he", "cp1255"),
]


@pytest.mark.parametrize(("language", "coding"), CODINGS)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_an_older_coding_that_its_letters_tell_gives_the_same_rows(
    tmp_path, language, coding, name
):
    text = TEXTS[language]
    assert len(text) >= 200
    rows = [{"text": text, "label": "1"}, {"text": text[:30] + '|\\,"', "label": "0"}]
    table = open_table(write_table(tmp_path / name, rows, coding=coding), KNOWN)
    assert [tuple(row) for _, row in table.rows()] == [tuple(row.values()) for row in rows]
    (said,) = table.said
    assert f"{name} is not UTF-8: it is read as " in said and "come out wrong" in said


@pytest.mark.parametrize("characters", [6, 25, 40])
@pytest.mark.parametrize(("language", "coding"), CODINGS)
def test_a_short_text_in_an_older_coding_is_refused_rather_than_guessed(
    tmp_path, language, coding, characters
):
    path = tmp_path / "t.txt"
    path.write_bytes(b"first\n" + 9 * (TEXTS[language][:characters].encode(coding) + b"\n"))
    with pytest.raises(InputError, match=r"line 2 is not UTF-8, .*iconv -f CODING -t UTF-8 t\.txt"):
        coding_of(path)


@pytest.mark.parametrize("characters", [60, 120, 300])
@pytest.mark.parametrize("language", ["fr", "es", "da"])
def test_western_text_stays_windows_1252(tmp_path, language, characters):
    path = tmp_path / "t.txt"
    path.write_bytes(
        "".join(f"{n} {TEXTS[language][:characters]}\n" for n in range(40)).encode("cp1252")
    )
    assert coding_of(path).name == "cp1252"


@pytest.mark.parametrize(("language", "coding"), [("cs", "cp1250"), ("tr", "cp1254")])
def test_latin_letters_of_other_languages_are_told_by_the_language(tmp_path, language, coding):
    path = tmp_path / "t.txt"
    path.write_bytes("".join(f"{n} {TEXTS[language]}\n" for n in range(4)).encode(coding))
    assert coding_of(path).name == coding


def test_a_long_file_is_told_by_lines_of_its_end_that_no_piece_cuts(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_train.formats.tables.coding._PIECE_BYTES", 101)
    path = tmp_path / "t.txt"
    begin = "plain words before the letters that tell, or not, "
    lines = begin + TEXTS["ja"].replace("。", f"。\n{begin}") + "終わり\n"
    path.write_bytes(b"plain words\n" * 200 + lines.encode("shift_jis"))
    assert coding_of(path).name == "cp932"
    asked = []
    monkeypatch.setattr("edge_train.formats.tables.coding.coding_by_letters", asked.append)
    with pytest.raises(InputError):
        coding_of(path)
    assert asked == [lines.encode("shift_jis")]


def test_a_text_that_does_not_go_on_as_it_was_guessed_is_one_sentence(tmp_path):
    path = tmp_path / "t.csv"
    body = ("text,label\n" + f"{TEXTS['zh']},1\n" * 60).encode("gbk")
    path.write_bytes(body + b"\xff\xff\xff,1\n")
    with pytest.raises(InputError, match=r"begins as GBK \(GB18030\) text and does not go on so"):
        list(open_table(path, KNOWN).rows())


def test_the_detector_is_imported_for_such_texts_alone(tmp_path):
    (tmp_path / "t.txt").write_text("naïve\n", "utf-8")
    script = (
        "import sys, pathlib; from edge_train.formats.tables.coding import coding_of; "
        "coding_of(pathlib.Path(sys.argv[1])); print('charset_normalizer' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "t.txt")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"

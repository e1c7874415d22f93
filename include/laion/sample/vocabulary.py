r"""The words the sample dataset is made of: what is on a picture, where, and in which style.

A caption says what the web page said (`CAPTION_FORMS`), a description says the same in other
words (`DESCRIPTION_FORMS`). Both are `str.format` templates with the fields

- `{subject}`, `{scene}`, `{style}`: the plain names, `{category}`: the subject's category,
- `{foreign}`: the subject in a language other than English,
- `{subject_alias}`, `{scene_alias}`, `{style_alias}`: the other wording.

A form need not mention the scene or the style; it always stands for its subject.
"""

# ruff: noqa: RUF001 - letters of other scripts are the point of this file

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """What a picture shows.

    `name` is unique and ASCII, `alias` is another wording that shares no noun with it,
    `foreign` holds at least one translation.
    """

    name: str
    category: str
    alias: str
    foreign: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name as it stands in a URL."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A scene or a style, in two wordings."""

    name: str
    alias: str


def _subjects(category: str, *rows: tuple[str, str, str]) -> tuple[Subject, ...]:
    """Make the subjects of one category; the third field lists translations between bars."""
    return tuple(
        Subject(name, category, alias, tuple(foreign.split("|"))) for name, alias, foreign in rows
    )


SUBJECTS: tuple[Subject, ...] = (
    *_subjects(
        "animals",
        ("cat", "a tabby feline with whiskers", "猫|кошка|قطة|बिल्ली|γάτα"),
        ("dog", "a friendly hound", "犬|собака|كلب|कुत्ता|σκύλος"),
        ("horse", "a galloping stallion", "馬|лошадь|حصان|घोड़ा|άλογο"),
        ("elephant", "a grey giant with a trunk", "象|слон|فيل|हाथी|ελέφαντας"),
        ("lion", "a big predator with a mane", "ライオン|лев|أسد|शेर|λιοντάρι"),
        ("owl", "a nocturnal bird of prey", "フクロウ|сова|بومة|उल्लू|κουκουβάγια"),
        ("parrot", "a colourful talking bird", "オウム|попугай|ببغاء|तोता|παπαγάλος"),
        ("penguin", "a flightless antarctic bird", "ペンギン|пингвин|بطريق|पेंगुइन|πιγκουίνος"),
        ("rabbit", "a bunny with long ears", "兎|кролик|أرنب|खरगोश|κουνέλι"),
        ("turtle", "a slow reptile in its shell", "亀|черепаха|سلحفاة|कछुआ|χελώνα"),
        ("butterfly", "an insect with patterned wings", "蝶|бабочка|فراشة|तितली|πεταλούδα"),
        ("dolphin", "a playful sea mammal", "イルカ|дельфин|دلفين|डॉल्फ़िन|δελφίνι"),
    ),
    *_subjects(
        "vehicles",
        ("bicycle", "a two-wheeler with pedals", "自転車|велосипед|دراجة|साइकिल|ποδήλατο"),
        ("motorcycle", "a heavy motorbike", "オートバイ|мотоцикл|دراجة نارية|मोटरसाइकिल"),
        (
            "sports car",
            "a low and fast coupe",
            "スポーツカー|спорткар|سيارة رياضية|σπορ αυτοκίνητο",
        ),
        ("steam train", "an old locomotive under smoke", "蒸気機関車|паровоз|قطار بخاري|रेलगाड़ी"),
        ("sailboat", "a small yacht under canvas", "ヨット|парусник|قارب شراعي|पाल नाव|ιστιοφόρο"),
        ("fire truck", "a red engine of the brigade", "消防車|пожарная машина|سيارة إطفاء|दमकल"),
        ("helicopter", "a rotor aircraft", "ヘリコプター|вертолёт|مروحية|हेलीकॉप्टर|ελικόπτερο"),
        ("airplane", "a jet airliner", "飛行機|самолёт|طائرة|हवाई जहाज़|αεροπλάνο"),
        ("tractor", "a farm machine with big wheels", "トラクター|трактор|جرار|ट्रैक्टर|τρακτέρ"),
        (
            "hot air balloon",
            "a basket under a gas envelope",
            "熱気球|воздушный шар|منطاد|αερόστατο",
        ),
    ),
    *_subjects(
        "food",
        ("pizza", "a baked flatbread with cheese", "ピザ|пицца|بيتزا|पिज़्ज़ा|πίτσα"),
        ("sushi", "rice rolls with raw fish", "寿司|суши|سوشي|सुशी|σούσι"),
        ("hamburger", "a beef patty in a bun", "ハンバーガー|гамбургер|برغر|बर्गर|χάμπουργκερ"),
        (
            "chocolate cake",
            "a dark cocoa gateau",
            "チョコレートケーキ|шоколадный торт|كعكة شوكولاتة",
        ),
        ("ice cream", "a frozen dessert in a cone", "アイスクリーム|мороженое|آيس كريم|παγωτό"),
        ("coffee", "an espresso in a small cup", "珈琲|кофе|قهوة|कॉफ़ी|καφές"),
        ("apple", "a crisp red fruit", "林檎|яблоко|تفاحة|सेब|μήλο"),
        ("salad", "a bowl of fresh greens", "サラダ|салат|سلطة|सलाद|σαλάτα"),
        ("bread", "a crusty loaf", "パン|хлеб|خبز|रोटी|ψωμί"),
        ("noodle soup", "a bowl of ramen in broth", "ラーメン|суп с лапшой|حساء المعكرونة"),
        ("pancakes", "a stack of griddle cakes", "パンケーキ|блины|فطائر|पैनकेक|τηγανίτες"),
        ("strawberry", "a sweet summer berry", "苺|клубника|فراولة|स्ट्रॉबेरी|φράουλα"),
    ),
    *_subjects(
        "places",
        ("lighthouse", "a tower that warns ships", "灯台|маяк|منارة|प्रकाशस्तंभ|φάρος"),
        ("castle", "a medieval fortress", "城|замок|قلعة|किला|κάστρο"),
        ("waterfall", "a cascade over rocks", "滝|водопад|شلال|झरना|καταρράκτης"),
        ("bridge", "a crossing over the river", "橋|мост|جسر|पुल|γέφυρα"),
        ("church", "a chapel with a steeple", "教会|церковь|كنيسة|गिरजाघर|εκκλησία"),
        ("mosque", "a prayer hall with minarets", "モスク|мечеть|مسجد|मस्जिद|τζαμί"),
        ("temple", "an ancient shrine", "寺|храм|معبد|मंदिर|ναός"),
        ("skyscraper", "a high-rise tower of glass", "摩天楼|небоскрёб|ناطحة سحاب|ουρανοξύστης"),
        ("windmill", "a mill with turning sails", "風車|мельница|طاحونة|पवनचक्की|ανεμόμυλος"),
        ("volcano", "a mountain with a crater", "火山|вулкан|بركان|ज्वालामुखी|ηφαίστειο"),
    ),
    *_subjects(
        "objects",
        ("guitar", "a six-string instrument", "ギター|гитара|غيتار|गिटार|κιθάρα"),
        ("piano", "a keyboard instrument with hammers", "ピアノ|пианино|بيانو|पियानो|πιάνο"),
        ("camera", "a device that takes photographs", "カメラ|фотоаппарат|كاميرا|कैमरा|κάμερα"),
        ("wristwatch", "a timepiece on a strap", "腕時計|часы|ساعة يد|घड़ी|ρολόι"),
        ("umbrella", "a folding shelter from rain", "傘|зонт|مظلة|छाता|ομπρέλα"),
        ("armchair", "an upholstered seat", "肘掛け椅子|кресло|كرسي|कुर्सी|πολυθρόνα"),
        ("teapot", "a vessel that pours tea", "急須|чайник|إبريق شاي|केतली|τσαγιέρα"),
        ("laptop", "a portable computer", "ノートパソコン|ноутбук|حاسوب محمول|लैपटॉप"),
        ("telescope", "an instrument to watch stars", "望遠鏡|телескоп|تلسكوب|दूरबीन|τηλεσκόπιο"),
        ("backpack", "a rucksack with two straps", "リュックサック|рюкзак|حقيبة ظهر|σακίδιο"),
    ),
    *_subjects(
        "plants",
        ("rose", "a thorny garden flower", "薔薇|роза|وردة|गुलाब|τριαντάφυλλο"),
        ("sunflower", "a tall yellow bloom", "向日葵|подсолнух|عباد الشمس|सूरजमुखी|ηλιοτρόπιο"),
        ("cactus", "a spiny desert succulent", "サボテン|кактус|صبار|कैक्टस|κάκτος"),
        ("palm tree", "a trunk with a crown of fronds", "椰子の木|пальма|نخلة|ताड़|φοίνικας"),
        ("bonsai", "a miniature tree in a pot", "盆栽|бонсай|بونساي|बोनसाई|μπονσάι"),
        ("mushroom", "a toadstool with a round cap", "茸|гриб|فطر|मशरूम|μανιτάρι"),
    ),
)

CATEGORIES: tuple[str, ...] = tuple(dict.fromkeys(subject.category for subject in SUBJECTS))

SCENES: tuple[Phrase, ...] = (
    Phrase("on the beach", "by the sea, on sand"),
    Phrase("in the snow", "surrounded by winter white"),
    Phrase("at night", "after dark, under street lamps"),
    Phrase("at sunset", "in the last orange light of the day"),
    Phrase("in the forest", "among tall trees"),
    Phrase("in the city", "between houses and traffic"),
    Phrase("in the mountains", "before high peaks"),
    Phrase("on a wooden table", "placed on oak boards"),
    Phrase("in the rain", "while drops are falling"),
    Phrase("in a garden", "amid flower beds"),
    Phrase("on a white background", "isolated, with nothing around"),
    Phrase("under water", "below the surface of the ocean"),
    Phrase("in the desert", "amid dry dunes"),
    Phrase("at a market", "next to busy stalls"),
)

STYLES: tuple[Phrase, ...] = (
    Phrase("photo", "a realistic snapshot"),
    Phrase("watercolor painting", "a work in soft aquarelle"),
    Phrase("oil painting", "a canvas in thick brush strokes"),
    Phrase("pencil sketch", "a drawing in graphite"),
    Phrase("vintage poster", "an old printed advertisement"),
    Phrase("3d render", "a computer-generated image"),
    Phrase("vector icon", "a flat pictogram"),
    Phrase("macro shot", "an extreme close-up"),
    Phrase("black and white", "a monochrome picture"),
    Phrase("cartoon", "a comic strip panel"),
)

PLAIN_CAPTION_FORMS: tuple[str, ...] = (
    "{subject} {scene}, {style}",
    "{style} of {subject} {scene}",
    "{subject} {scene}",
    "{subject} | {style}",
    "Stock {style}: {subject} {scene} - {category}",
    "{subject} {scene} ({style}), royalty free",
    "The best {category}: {subject} {scene}",
    "{foreign} {scene}, {style}",
)

# Every one of these breaks some loader: quoting, separators, escapes, scripts, blanks, length.
ODD_CAPTION_FORMS: tuple[str, ...] = (
    "",
    '"{subject}" {scene}, {style}',
    '"""My {subject}..."" {scene}',
    "Jimmie's {subject} {scene}, it's a {style}",
    "{category}, {subject}, {scene}, {style}",
    "{subject}\n{scene}\n{style}",
    "{subject}\r\n{scene}",
    "{subject}\t{scene}\t{style}",
    "C:\\New\\{category}\\{subject}\\{style}.jpg",
    "\\N {subject} \\t \\' {scene} \\",
    "{subject} {scene} 😍📷 #{style} 👩‍🚀",
    "Art &amp; Design &quot;{subject}&quot; {scene} &#8211; {style} &lt;b&gt;",
    "   {subject} {scene}, {style}",
    "{subject} {scene}, {style}   ",
    "{foreign}",
    "{foreign} – {subject} “{scene}” … {style}",
    "SELECT '{subject}' FROM {category}; -- {style}",
    "{{'title': '{subject}', \"tags\": [\"{style}\", null]}} 100% $5 {scene}",
    "{subject} {scene} {style} | "
    + "buy {subject} {style} online, cheap {category} {scene}; " * 25,
)

CAPTION_FORMS: tuple[str, ...] = ODD_CAPTION_FORMS + PLAIN_CAPTION_FORMS

DESCRIPTION_FORMS: tuple[str, ...] = (
    "{style_alias} showing {subject_alias} {scene_alias}",
    "Here we see {subject_alias}, {scene_alias}; it is {style_alias}",
    "{subject_alias} as the centre of {style_alias}, taken {scene_alias}",
)

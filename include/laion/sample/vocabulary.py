r"""The words the sample dataset is made of: what is on a picture, where, and in which style.

A caption says what the web page said (`CAPTION_FORMS`), a description says the same in other
words (`DESCRIPTION_FORMS`). Both are `str.format` templates with the fields

- `{look}`, `{subject}`, `{scene}`, `{style}`: the plain names,
- `{category}`: the subject's category,
- `{foreign}`: the subject in a language other than English,
- `{look_alias}`, `{subject_alias}`, `{scene_alias}`, `{style_alias}`: the other wording.

A form need not mention look, scene or style; it always stands for its subject.
"""

# ruff: noqa: RUF001 - letters of other scripts are the point of this file

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """What a picture shows.

    `name` is unique and ASCII, `alias` is another wording that shares no noun with it, `meaning`
    says in further words what it is, `foreign` holds at least one translation.
    """

    name: str
    category: str
    alias: str
    meaning: str
    foreign: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name as it stands in a URL."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A look, a scene or a style, in two wordings."""

    name: str
    alias: str


def _subjects(category: str, *rows: tuple[str, str, str, str]) -> tuple[Subject, ...]:
    """Make the subjects of one category; the last field lists translations between bars."""
    return tuple(
        Subject(name, category, alias, meaning, tuple(foreign.split("|")))
        for name, alias, meaning, foreign in rows
    )


SUBJECTS: tuple[Subject, ...] = (
    *_subjects(
        "animals",
        (
            "cat",
            "a kitty, a tabby feline with whiskers that purrs",
            "a small household mammal with soft fur and claws",
            "猫|кошка|قطة|बिल्ली|γάτα",
        ),
        (
            "dog",
            "a hound, a canine pet on a leash",
            "a loyal domesticated descendant of wolves, of many breeds",
            "犬|собака|كلب|कुत्ता|σκύλος",
        ),
        (
            "horse",
            "a stallion, an equine with a saddle",
            "a large hoofed animal for riding",
            "馬|лошадь|حصان|घोड़ा|άλογο",
        ),
        (
            "elephant",
            "a pachyderm with tusks and a long trunk",
            "a giant mammal of the jungle with ivory teeth and thick skin",
            "象|слон|فيل|हाथी|ελέφαντας",
        ),
        (
            "lion",
            "a roaring maned predator, king of the savanna",
            "a large tawny carnivore of the plains, a safari animal",
            "ライオン|лев|أسد|शेर|λιοντάρι",
        ),
        (
            "owl",
            "a hooting night bird with big round eyes, a wise old raptor",
            "a nightly predator with talons, perched silently",
            "フクロウ|сова|بومة|उल्लू|κουκουβάγια",
        ),
        (
            "parrot",
            "a macaw, a colourful talking bird",
            "a tropical, exotic creature with a hooked beak that mimics speech",
            "オウム|попугай|ببغاء|तोता|παπαγάλος",
        ),
        (
            "penguin",
            "a flightless antarctic bird that waddles",
            "a seabird of polar seas with flippers that walks upright",
            "ペンギン|пингвин|بطريق|पेंगुइन|πιγκουίνος",
        ),
        (
            "rabbit",
            "a bunny with long ears",
            "a small burrowing rodent-like mammal with soft fur",
            "兎|кролик|أرنب|खरगोश|κουνέλι",
        ),
        (
            "turtle",
            "a tortoise, a slow reptile in its shell",
            "an armoured amphibious animal that lives very long",
            "亀|черепаха|سلحفاة|कछुआ|χελώνα",
        ),
        (
            "butterfly",
            "a monarch, an insect with patterned wings",
            "a delicate winged bug that feeds on nectar",
            "蝶|бабочка|فراشة|तितली|πεταλούδα",
        ),
        (
            "dolphin",
            "a porpoise, a playful sea mammal",
            "a small toothed whale, friendly and acrobatic",
            "イルカ|дельфин|دلفين|डॉल्फ़िन|δελφίνι",
        ),
    ),
    *_subjects(
        "vehicles",
        (
            "bicycle",
            "a bike, a two-wheeler with pedals",
            "a vehicle with handlebar and chain, moved by foot",
            "自転車|велосипед|دراجة|साइकिल|ποδήλατο",
        ),
        (
            "motorcycle",
            "a Harley-Davidson motorbike for bikers",
            "a powerful vehicle on two wheels with an exhaust, ridden on the highway",
            "オートバイ|мотоцикл|دراجة نارية|मोटरसाइकिल",
        ),
        (
            "sports car",
            "a Ferrari, a fast racing coupe",
            "an expensive automobile with a powerful motor, low and aerodynamic",
            "スポーツカー|спорткар|سيارة رياضية|σπορ αυτοκίνητο",
        ),
        (
            "steam train",
            "an old railway locomotive under smoke",
            "a historic railroad with a boiler and a chimney",
            "蒸気機関車|паровоз|قطار بخاري|रेलगाड़ी",
        ),
        (
            "sailboat",
            "a small yacht with a mast under canvas",
            "a vessel on the sea without a motor, for yachting",
            "ヨット|парусник|قارب شراعي|पाल नाव|ιστιοφόρο",
        ),
        (
            "fire truck",
            "a red ladder engine of the firefighters",
            "a lorry of the brigade that extinguishes fires",
            "消防車|пожарная машина|سيارة إطفاء|दमकल",
        ),
        (
            "helicopter",
            "a chopper aircraft with rotor blades",
            "a flying machine that is lifted by a propeller on its top",
            "ヘリコプター|вертолёт|مروحية|हेलीकॉप्टर|ελικόπτερο",
        ),
        (
            "airplane",
            "a jet airliner, a Boeing plane with wings",
            "an aircraft for commercial aviation, with turbines and a pilot in the cockpit",
            "飛行機|самолёт|طائرة|हवाई जहाज़|αεροπλάνο",
        ),
        (
            "tractor",
            "a John Deere, a farm machine with big wheels",
            "farming equipment, heavy machinery for crops and harvest",
            "トラクター|трактор|جرار|ट्रैक्टर|τρακτέρ",
        ),
        (
            "hot air balloon",
            "a montgolfier with basket and burner, floating high",
            "a lighter-than-air craft of colourful fabric for flying tourists",
            "熱気球|воздушный шар|منطاد|αερόστατο",
        ),
    ),
    *_subjects(
        "food",
        (
            "pizza",
            "a margherita, an Italian pie with mozzarella, pepperoni and tomato",
            "a baked snack with toppings and a crust, from the oven",
            "ピザ|пицца|بيتزا|पिज़्ज़ा|πίτσα",
        ),
        (
            "sushi",
            "Japanese nigiri and maki, rice with raw fish",
            "seafood delicacies rolled in seaweed",
            "寿司|суши|سوشي|सुशी|σούσι",
        ),
        (
            "hamburger",
            "a cheeseburger, a beef patty in a bun",
            "a sandwich from the grill with minced cow, junk to eat at a diner",
            "ハンバーガー|гамбургер|برغر|बर्गर|χάμπουργκερ",
        ),
        (
            "chocolate cake",
            "a dark cocoa gateau with brownie layers",
            "a sweet baked pastry with frosting, for a party",
            "チョコレートケーキ|шоколадный торт|كعكة شوكولاتة",
        ),
        (
            "ice cream",
            "gelato, a frozen sundae in a cone",
            "a cold creamy treat of the summer, in many flavours",
            "アイスクリーム|мороженое|آيس كريم|παγωτό",
        ),
        (
            "coffee",
            "an espresso, a cappuccino in a cup",
            "a hot beverage of roasted beans with caffeine",
            "珈琲|кофе|قهوة|कॉफ़ी|καφές",
        ),
        (
            "apple",
            "a crisp fruit of the orchard, a Granny Smith for cider",
            "a round juicy food that grows in autumn, healthy to bite",
            "林檎|яблоко|تفاحة|सेब|μήλο",
        ),
        (
            "salad",
            "a bowl of lettuce and fresh greens with dressing",
            "a raw vegetarian dish of leaves, tomatoes and olive oil",
            "サラダ|салат|سلطة|सलाद|σαλάτα",
        ),
        (
            "bread",
            "a baguette, a crusty loaf of the bakery",
            "a baked food of flour, water and yeast, fresh from the oven",
            "パン|хлеб|خبز|रोटी|ψωμί",
        ),
        (
            "noodle soup",
            "a bowl of ramen in hot broth",
            "an Asian dish of pasta in liquid, with vegetables and egg",
            "ラーメン|суп с лапшой|حساء المعكرونة",
        ),
        (
            "pancakes",
            "a stack of griddle crepes with maple syrup",
            "thin flat cakes of batter fried in a pan",
            "パンケーキ|блины|فطائر|पैनकेक|τηγανίτες",
        ),
        (
            "strawberry",
            "a sweet red summer berry",
            "a juicy little thing with tiny seeds, for jam and dessert",
            "苺|клубника|فراولة|स्ट्रॉबेरी|φράουλα",
        ),
    ),
    *_subjects(
        "places",
        (
            "lighthouse",
            "a beacon tower on the coast that warns ships",
            "a maritime building that shines by night, for navigation",
            "灯台|маяк|منارة|प्रकाशस्तंभ|φάρος",
        ),
        (
            "castle",
            "a medieval fortress with towers",
            "a fortified old residence of nobility, with walls and battlements",
            "城|замок|قلعة|किला|κάστρο",
        ),
        (
            "waterfall",
            "cascading falls of a river over a cliff",
            "a steep drop of flowing water, a spectacle of nature",
            "滝|водопад|شلال|झरना|καταρράκτης",
        ),
        (
            "bridge",
            "a viaduct, a span crossing over the river",
            "a structure of engineers that carries a road or railway over water",
            "橋|мост|جسر|पुल|γέφυρα",
        ),
        (
            "church",
            "a chapel, a cathedral with a steeple",
            "a Christian religious building with an altar and a cross",
            "教会|церковь|كنيسة|गिरजाघर|εκκλησία",
        ),
        (
            "mosque",
            "a muslim prayer hall with minarets",
            "a sacred building of Islam with a dome",
            "モスク|мечеть|مسجد|मस्जिद|τζαμί",
        ),
        (
            "temple",
            "a buddhist shrine, a pagoda",
            "a sacred place of worship in Asia, for meditation",
            "寺|храм|معبد|मंदिर|ναός",
        ),
        (
            "skyscraper",
            "a high-rise office tower of glass downtown",
            "modern urban architecture with a hundred floors, reaching for the clouds",
            "摩天楼|небоскрёб|ناطحة سحاب|ουρανοξύστης",
        ),
        (
            "windmill",
            "a mill with sails turned by the wind",
            "a rural tower with spinning arms that makes flour or energy",
            "風車|мельница|طاحونة|पवनचक्की|ανεμόμυλος",
        ),
        (
            "volcano",
            "an erupting mountain crater with lava",
            "a geological hazard that spits fire, smoke and molten rock",
            "火山|вулкан|بركان|ज्वालामुखी|ηφαίστειο",
        ),
    ),
    *_subjects(
        "objects",
        (
            "guitar",
            "a six-string instrument, a Fender Stratocaster",
            "a wooden musical thing with frets, for folk and flamenco songs",
            "ギター|гитара|غيتار|गिटार|κιθάρα",
        ),
        (
            "piano",
            "a keyboard instrument, a Steinway grand",
            "a large musical device with hammers and ivories, for classical music",
            "ピアノ|пианино|بيانو|पियानो|πιάνο",
        ),
        (
            "camera",
            "a Nikon photographic device with a lens",
            "equipment for photography, with a flash and film",
            "カメラ|фотоаппарат|كاميرا|कैमरा|κάμερα",
        ),
        (
            "wristwatch",
            "a Rolex timepiece on a strap",
            "a small clock with a dial and hands, jewellery",
            "腕時計|часы|ساعة يد|घड़ी|ρολόι",
        ),
        (
            "umbrella",
            "a parasol, a brolly held up against the rain",
            "a portable canopy on a stick against wet weather",
            "傘|зонт|مظلة|छाता|ομπρέλα",
        ),
        (
            "armchair",
            "an upholstered seat, a recliner sofa for one",
            "comfy padded seating with rests for the elbows",
            "肘掛け椅子|кресло|كرسي|कुर्सी|πολυθρόνα",
        ),
        (
            "teapot",
            "a kettle, a porcelain vessel that pours tea",
            "ceramic crockery with a handle, for the five o'clock ceremony",
            "急須|чайник|إبريق شاي|केतली|τσαγιέρα",
        ),
        (
            "laptop",
            "a portable notebook computer with screen and keyboard",
            "a mobile electronic device for office work and the internet",
            "ノートパソコン|ноутбук|حاسوب محمول|लैपटॉप",
        ),
        (
            "telescope",
            "an astronomer's instrument to watch stars",
            "an optical device with mirrors for astronomy, to magnify planets and galaxies",
            "望遠鏡|телескоп|تلسكوب|दूरबीन|τηλεσκόπιο",
        ),
        (
            "backpack",
            "a rucksack, a knapsack with two straps",
            "luggage carried on one's back, for trekking and school",
            "リュックサック|рюкзак|حقيبة ظهر|σακίδιο",
        ),
    ),
    *_subjects(
        "plants",
        (
            "rose",
            "a thorny garden flower, red romantic petals",
            "a fragrant blossom of love, with a stem and prickles",
            "薔薇|роза|وردة|गुलाब|τριαντάφυλλο",
        ),
        (
            "sunflower",
            "a helianthus, a tall yellow bloom full of seeds",
            "a giant golden flower of the fields, grown for cooking oil",
            "向日葵|подсолнух|عباد الشمس|सूरजमुखी|ηλιοτρόπιο",
        ),
        (
            "cactus",
            "a spiny desert succulent, a saguaro",
            "a desert vegetable with needles that stores water",
            "サボテン|кактус|صبار|कैक्टस|κάκτος",
        ),
        (
            "palm tree",
            "a tropical coconut trunk with a crown of fronds",
            "an exotic tall plant of beaches and warm coasts",
            "椰子の木|пальма|نخلة|ताड़|φοίνικας",
        ),
        (
            "bonsai",
            "a miniature japanese tree in a pot",
            "a dwarf potted plant, trained by a gardener's art",
            "盆栽|бонсай|بونساي|बोनसाई|μπονσάι",
        ),
        (
            "mushroom",
            "a toadstool, a fungus with a round cap",
            "a spongy growth of the forest floor, delicious or poisonous",
            "茸|гриб|فطر|मशरूम|μανιτάρι",
        ),
    ),
)

CATEGORIES: tuple[str, ...] = tuple(dict.fromkeys(subject.category for subject in SUBJECTS))

LOOKS: dict[str, tuple[Phrase, ...]] = {
    "animals": (
        Phrase("sleepy", "dozing with closed eyes"),
        Phrase("playful", "jumping around for fun"),
        Phrase("hungry", "waiting to be fed"),
        Phrase("ginger", "with reddish orange fur"),
        Phrase("curious", "looking straight at the viewer"),
        Phrase("baby", "still very young and small"),
    ),
    "vehicles": (
        Phrase("rusty", "corroded by years of use"),
        Phrase("brand new", "fresh from the factory"),
        Phrase("bright red", "painted in scarlet"),
        Phrase("muddy", "covered in dirt"),
        Phrase("vintage", "from an age long past"),
        Phrase("toy", "a small model for children"),
    ),
    "food": (
        Phrase("homemade", "prepared in the family kitchen"),
        Phrase("delicious", "looking very tasty"),
        Phrase("half-eaten", "with some bites missing"),
        Phrase("giant", "far larger than usual"),
        Phrase("fresh", "made just now"),
        Phrase("vegan", "without anything from animals"),
    ),
    "places": (
        Phrase("ancient", "built many centuries ago"),
        Phrase("abandoned", "where nobody has been for years"),
        Phrase("famous", "known all over the world"),
        Phrase("foggy", "half hidden in mist"),
        Phrase("tiny", "surprisingly small"),
        Phrase("colourful", "in all the colours of the rainbow"),
    ),
    "objects": (
        Phrase("antique", "of great age"),
        Phrase("broken", "damaged and in pieces"),
        Phrase("expensive", "that costs a fortune"),
        Phrase("black", "in a very dark colour"),
        Phrase("dusty", "untouched for a long time"),
        Phrase("handmade", "crafted by an artisan"),
    ),
    "plants": (
        Phrase("blooming", "in full blossom"),
        Phrase("wilted", "dry and drooping"),
        Phrase("wild", "growing untended"),
        Phrase("giant", "of enormous size"),
        Phrase("frosty", "covered in ice crystals"),
        Phrase("young", "just sprouting"),
    ),
}
"""What may be said of the subjects of a category."""

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
    "{look} {subject} {scene}, {style}",
    "{style} of a {look} {subject}",
    "{look} {subject} {scene}",
    "{subject} {scene} | {style}",
    "Stock {style}: {look} {subject} - {category}",
    "{subject} {scene} ({style}), royalty free",
    "The best {category}: {look} {subject}",
    "{foreign}, {look} {subject}, {style}",
)

# Every one of these breaks some loader: quoting, separators, escapes, scripts, blanks, length.
ODD_CAPTION_FORMS: tuple[str, ...] = (
    "",
    '"{subject}" {scene}, {style}',
    '"""My {look} {subject}..."" {scene}',
    "Jimmie's {subject} {scene}, it's a {style}",
    "{category}, {subject}, {scene}, {style}",
    "{subject}\n{scene}\n{style}",
    "{look} {subject}\r\n{scene}",
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
    "{look} {subject} {scene} {style} | "
    + "buy {subject} {style} online, cheap {category} {scene}; " * 25,
)

CAPTION_FORMS: tuple[str, ...] = PLAIN_CAPTION_FORMS + ODD_CAPTION_FORMS

DESCRIPTION_FORMS: tuple[str, ...] = (
    "{subject_alias}, {look_alias}",
    "{subject_alias} {scene_alias}, {look_alias}",
    "{style_alias} of {subject_alias}",
)

<?php
// Installs WordPress when it is not, then makes its content equal to the sample site.
// Usage: php seed.php DOCUMENT_ROOT < site.json; prints what it did as one JSON object.
// A post is found by its slug and written only when its text in the sample site has changed since it was last written:
// what a person has edited in WordPress stays.

$site = json_decode(stream_get_contents(STDIN), true, 512, JSON_THROW_ON_ERROR);
$root = $argv[1];

$address = parse_url($site['home']);
$_SERVER += [
    'HTTP_HOST' => $address['host'] . (isset($address['port']) ? ':' . $address['port'] : ''),
    'SERVER_NAME' => $address['host'],
    'SERVER_PROTOCOL' => 'HTTP/1.1',
    'REQUEST_METHOD' => 'GET',
    'REQUEST_URI' => '/',
];

// WordPress would otherwise write its own first post, page and comment. It lets us replace this function.
function wp_install_defaults($user_id) {
}

define('WP_INSTALLING', true);
require_once $root . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/image.php';
require_once ABSPATH . 'wp-admin/includes/taxonomy.php';

add_filter('pre_wp_mail', '__return_true');
add_filter('upload_mimes', fn ($types) => $types + ['svg' => 'image/svg+xml']);

function or_stop($value, string $what) {
    if (is_wp_error($value)) {
        fwrite(STDERR, "$what: " . $value->get_error_message() . "\n");
        exit(1);
    }
    if (!$value) {
        fwrite(STDERR, "$what: WordPress gave no result\n");
        exit(1);
    }
    return $value;
}

function ensure_user(string $login, string $display_name, string $role, ?string $password): int {
    $known = get_user_by('login', $login);
    $facts = ['user_login' => $login, 'display_name' => $display_name, 'nickname' => $display_name, 'role' => $role];
    if ($known) {
        $facts['ID'] = $known->ID;
        return or_stop(wp_update_user($facts), "user $login");
    }
    $facts['user_email'] = $login . '@site.example';
    $facts['user_pass'] = $password ?? wp_generate_password(24);
    return or_stop(wp_insert_user($facts), "user $login");
}

function ensure_category(array $category, int $parent, string $path, array &$by_path): void {
    $facts = ['slug' => $category['slug'], 'description' => $category['description'] ?? '', 'parent' => $parent];
    $known = get_term_by('slug', $category['slug'], 'category');
    $term = $known
        ? wp_update_term($known->term_id, 'category', $facts + ['name' => $category['name']])
        : wp_insert_term($category['name'], 'category', $facts);
    $id = or_stop($term, "category $path")['term_id'];
    $by_path[$path] = $id;
    foreach ($category['children'] ?? [] as $child) {
        ensure_category($child, $id, $path . '/' . $child['name'], $by_path);
    }
}

function ensure_image(array $image, int $author): int {
    $known = get_posts(['post_type' => 'attachment', 'post_status' => 'inherit', 'meta_key' => '_seed_name',
                        'meta_value' => $image['name'], 'fields' => 'ids', 'posts_per_page' => 1]);
    if ($known && get_post_meta($known[0], '_seed_digest', true) === $image['digest']) {
        return $known[0];
    }
    if ($known) {
        file_put_contents(get_attached_file($known[0]), file_get_contents($image['file']));
        $id = $known[0];
    } else {
        $stored = wp_upload_bits($image['name'], null, file_get_contents($image['file']));
        if ($stored['error']) {
            fwrite(STDERR, "image {$image['name']}: {$stored['error']}\n");
            exit(1);
        }
        $id = or_stop(wp_insert_attachment([
            'import_id' => $image['id'],
            'post_title' => $image['title'],
            'post_mime_type' => $image['type'],
            'post_status' => 'inherit',
            'post_author' => $author,
            'post_date' => $image['date'],
            'post_date_gmt' => $image['date'],
        ], $stored['file']), "image {$image['name']}");
    }
    wp_update_attachment_metadata($id, wp_generate_attachment_metadata($id, get_attached_file($id)));
    update_post_meta($id, '_seed_name', $image['name']);
    update_post_meta($id, '_seed_digest', $image['digest']);
    return $id;
}

/** Writes one post or page and says whether it was created, updated or left unchanged. */
function ensure_post(array $post, array $authors, array $categories, array $images): string {
    $known = get_posts(['name' => $post['slug'], 'post_type' => $post['type'], 'post_status' => 'any', 'posts_per_page' => 1]);
    if ($known && get_post_meta($known[0]->ID, '_seed_digest', true) === $post['digest']) {
        return 'unchanged';
    }
    $facts = [
        'post_type' => $post['type'],
        'post_status' => 'publish',
        'post_name' => $post['slug'],
        'post_title' => $post['title'],
        'post_content' => $post['html'],
        'post_excerpt' => $post['excerpt'],
        'post_author' => $authors[$post['author']],
        'post_date' => $post['date'],
        'post_date_gmt' => $post['date'],
        'comment_status' => 'closed',
        'ping_status' => 'closed',
    ];
    if ($post['type'] === 'post') {
        $facts['post_category'] = array_map(fn ($path) => $categories[$path], $post['categories']);
        $facts['tags_input'] = $post['tags'];
    }
    if ($known) {
        $facts['ID'] = $known[0]->ID;
        $id = wp_update_post(wp_slash($facts), true);
    } else {
        $facts['import_id'] = $post['id'];
        $id = wp_insert_post(wp_slash($facts), true);
    }
    or_stop($id, "post {$post['slug']}");
    if ($post['featured_image'] !== null) {
        set_post_thumbnail($id, $images[$post['featured_image']]);
    }
    update_post_meta($id, '_seed_digest', $post['digest']);
    return $known ? 'updated' : 'created';
}

if (!is_blog_installed()) {
    wp_install($site['title'], 'admin', 'admin@site.example', true, '', $site['admin_password']);
}
// A post dated after this machine's clock would wait for its day; the sample site is complete at once.
add_filter('wp_insert_post_data', fn ($data) => $data['post_status'] === 'future' ? ['post_status' => 'publish'] + $data : $data);
kses_remove_filters();   // the sample site's HTML is ours and stays as written
update_option('blogname', $site['title']);
update_option('blogdescription', $site['tagline']);
update_option('timezone_string', $site['timezone']);
update_option('uploads_use_yearmonth_folders', 0);
update_option('default_pingback_flag', 0);
if (wp_get_theme($site['theme'])->exists()) {
    switch_theme($site['theme']);
}
// Links inside the sample site are HOME/SLUG/. Written to the database alone: the router needs no .htaccess.
$wp_rewrite->init();
$wp_rewrite->set_permalink_structure('/%postname%/');
$wp_rewrite->flush_rules(false);

$authors = ['admin' => get_user_by('login', 'admin')->ID];
$authors['trainer'] = ensure_user('trainer', 'Trainer', 'editor', null);
foreach ($site['authors'] as $author) {
    $authors[$author['login']] = ensure_user($author['login'], $author['display_name'], 'author', null);
}

if (!get_term_by('slug', 'uncategorized', 'category')) {
    $default = or_stop(wp_insert_term('Uncategorized', 'category', ['slug' => 'uncategorized']), 'default category');
    update_option('default_category', $default['term_id']);
}
$categories = [];
foreach ($site['categories'] as $category) {
    ensure_category($category, 0, $category['name'], $categories);
}
$images = [];
foreach ($site['images'] as $image) {
    $images[$image['name']] = ensure_image($image, $authors['admin']);
}

wp_defer_term_counting(true);
wp_suspend_cache_invalidation(true);
$counts = ['created' => 0, 'updated' => 0, 'unchanged' => 0];
foreach ($site['posts'] as $post) {
    $counts[ensure_post($post, $authors, $categories, $images)]++;
}
wp_suspend_cache_invalidation(false);
wp_defer_term_counting(false);

$result = $counts;
if ($site['new_application_password']) {
    foreach (WP_Application_Passwords::get_user_application_passwords($authors['trainer']) as $old) {
        WP_Application_Passwords::delete_application_password($authors['trainer'], $old['uuid']);
    }
    $made = WP_Application_Passwords::create_new_application_password($authors['trainer'], ['name' => 'finetune']);
    $result['application_password'] = or_stop($made, 'application password')[0];
}
echo json_encode($result), "\n";
